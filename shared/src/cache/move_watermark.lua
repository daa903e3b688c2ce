-- Moves the watermark if it still stands where the caller saw it; a repair that ends ends the bypass.
--   KEYS[1] the state, ARGV[1] where it stood ('' for nowhere), ARGV[2] where it goes
-- Returns 1 moved, 0 not.
if (redis.call('HGET', KEYS[1], 'watermark') or '') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'watermark', ARGV[2])
redis.call('HDEL', KEYS[1], 'bypass', 'cleared')
return 1
