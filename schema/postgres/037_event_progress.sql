-- It joins numbers to text, which PostgreSQL calls stable: called immutable it was not put into the statement that calls it
-- (open_closed), but planned by itself for each batch that is closed.
ALTER FUNCTION event_progress STABLE;
