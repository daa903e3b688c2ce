DROP TABLE cache_writes;
