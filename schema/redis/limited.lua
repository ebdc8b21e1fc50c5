-- A command on a key that ends by itself: in one move, so that the key never stays without an end.
-- KEYS  the key
-- ARGV  seconds it is there from now on, the command, what follows the key
-- Gives what the command gives.
local given = redis.call(ARGV[2], KEYS[1], unpack(ARGV, 3))
redis.call("EXPIRE", KEYS[1], ARGV[1])
return given
