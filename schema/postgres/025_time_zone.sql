-- Names of time zones are those of the IANA database, and nothing else.

-- Whether PostgreSQL knows the time zone by this name, and has it from the database: what looks like an offset, such as
-- "Berlin+1", it takes for a rule of its own, with the sign of POSIX, and abbreviations such as "CEST" for an offset that
-- never changes. To look through the database takes a while, so only names that may be such ones are looked for there, when
-- they are given; what is stored is not asked about again.
CREATE FUNCTION is_iana_zone(p text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN is_time_zone(p) AND ((p ~ '/' AND p !~ '[0-9+-]') OR p = 'UTC'
                                OR EXISTS (SELECT FROM pg_timezone_names n WHERE lower(n.name) = lower(p)));
END $$;

CREATE OR REPLACE FUNCTION label_time_zone() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM label_name n WHERE n.id = NEW.name_id AND n.name = 'attr.time_zone')
       AND NOT is_iana_zone(NEW.value) THEN
        RAISE EXCEPTION '%', NEW.value USING ERRCODE = 'MU003';
    END IF;
    RETURN NEW;
END $$;
