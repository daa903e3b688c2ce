-- A writer takes ids in blocks and knows them before it writes: COPY cannot return what a default gave a row. Whoever takes
-- the value N owns N to N + 999.
ALTER SEQUENCE orders_id_seq INCREMENT BY 1000;
