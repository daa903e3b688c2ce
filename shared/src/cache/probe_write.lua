-- Runs every command that writing an entry runs, and leaves nothing behind. An error names its command, because Redis
-- may not.
--   KEYS[1] a key that no order has, ARGV[1] the channel of announcements
local commands = {
    {'HMGET', KEYS[1], 'version', 'mac'},
    {'HSTRLEN', KEYS[1], 'json'},
    {'HGET', KEYS[1], 'json'},
    {'TIME'},
    {'HSET', KEYS[1], 'version', ''},
    {'PEXPIRE', KEYS[1], 1},
    {'DEL', KEYS[1]},
    {'PUBLISH', ARGV[1], ''},
}
for _, command in ipairs(commands) do
    local reply = redis.pcall(unpack(command))
    if type(reply) == 'table' and reply.err then
        redis.pcall('DEL', KEYS[1])
        return redis.error_reply(reply.err .. ' (' .. command[1] .. ')')
    end
end
return 1
