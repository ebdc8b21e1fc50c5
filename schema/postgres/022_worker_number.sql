-- Numbers of workers: u16, without 0 (nobody) and 65535 (who is not known). Drawn here, since Redis may be emptied, or come
-- back as it was a moment ago, while a worker still uses one that it does not know any more.
CREATE SEQUENCE worker_number AS integer MINVALUE 1 MAXVALUE 65534 CYCLE;
