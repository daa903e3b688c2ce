-- Writes one version of an order unless the entry holds the same or a newer one.
--   KEYS[1] the entry
--   ARGV[1] version of the document: VERSION, or VERSION-N in the shape N > 1
--   ARGV[2] document, empty for an erased order
--   ARGV[3] time to live, ms
--   ARGV[4] until when (clock of this server, ms) a write may create the entry
--   ARGV[5] channel and ARGV[6] message of the announcement; absent if the caller announces a whole batch itself
-- Returns 1 written, 0 holds the same version, -1 holds a newer one, -2 too late to create the entry.

-- VERSION has a fixed width, so comparing it as text compares versions. Lua's numbers are doubles.
local WIDTH = 50

-- Returns N, or nil if the text is not the version of a document.
local function representation(text)
    if #text == WIDTH then return 1 end
    return tonumber(string.match(text, '^%-(%d+)$', WIDTH + 1))
end

-- Returns whether the document version a is newer than b: by its version, then by its shape.
local function is_newer(a, b)
    local version_a, version_b = string.sub(a, 1, WIDTH), string.sub(b, 1, WIDTH)
    if version_a ~= version_b then return version_a > version_b end
    return representation(a) > representation(b)
end

local held = redis.pcall('HGET', KEYS[1], 'version')
if type(held) == 'table' then
    -- Not a hash, so not an entry of ours. HSET would fail on it.
    redis.call('DEL', KEYS[1])
    held = false
end
if held and representation(held) then
    if held == ARGV[1] then return 0 end
    if is_newer(held, ARGV[1]) then return -1 end
else
    local now = redis.call('TIME')
    if now[1] * 1000 + math.floor(now[2] / 1000) > tonumber(ARGV[4]) then return -2 end
end
if ARGV[2] == '' then
    redis.call('DEL', KEYS[1])
    redis.call('HSET', KEYS[1], 'version', ARGV[1])
else
    redis.call('HSET', KEYS[1], 'version', ARGV[1], 'json', ARGV[2])
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
if ARGV[5] then redis.call('PUBLISH', ARGV[5], ARGV[6]) end
return 1
