DROP TABLE complete_cache;
