-- Moves the watermark if it is still the one that the caller saw. Ends the bypass, because the repair has ended.
--   KEYS[1] the state, ARGV[1] the watermark that the caller saw ('' if none), ARGV[2] the new watermark
-- Returns 1 moved, 0 not.
if (redis.call('HGET', KEYS[1], 'watermark') or '') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'watermark', ARGV[2])
redis.call('HDEL', KEYS[1], 'bypass', 'cleared')
return 1
