-- A worker may use every id of the last block.
SELECT setval('orders_id_seq', last_value + 999) FROM orders_id_seq WHERE is_called;
ALTER SEQUENCE orders_id_seq INCREMENT BY 1;
