-- How long numbers of workers hold unrenewed: each time with which one was ever drawn. A Redis that was lost does not know
-- who may still send, and somebody may for as long as the longest of them. Empty where there never was a worker.
CREATE TABLE worker_lease (lease_ms bigint PRIMARY KEY);
INSERT INTO worker_lease SELECT 10000 FROM worker_number WHERE is_called;
