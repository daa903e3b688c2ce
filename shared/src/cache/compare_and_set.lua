-- Writes one version of an order unless the entry holds the same or a newer one.
--   KEYS[1] the entry
--   ARGV[1] version of the document: VERSION, or VERSION-N in the shape N > 1
--   ARGV[2] document, empty for an erased order
--   ARGV[3] time to live, ms
--   ARGV[4] until when (clock of this server, ms) a write may create the entry
--   ARGV[5] MAC of the entry, empty without a key
--   ARGV[6] version of an entry that is newer than Postgres and counts as missing; empty if there is none
--   ARGV[7] channel and ARGV[8] message of the announcement; absent if the caller announces a whole batch itself
-- Returns 1 written, 0 holds the same, -2 too late to create the entry, -3 holds this version in a newer shape, or the newer
-- version that the entry holds.

-- VERSION has a fixed width, so comparing it as text compares versions. Lua's numbers are doubles.
local WIDTH = 50

-- Bytes that no document exceeds (MAX_DOCUMENT in check.rs).
local MAX_DOCUMENT = 2097152

-- Returns whether the text is VERSION. A greater text that is none would keep every version out.
local function is_version(text)
    local time, offset, partition = string.match(text, '^(%d+)%-(%d+)%-(%d+)$')
    return time and #time == 19 and #offset == 19 and #partition == 10
        and time <= '9223372036854775807' and offset <= '9223372036854775807' and partition <= '2147483647'
end

-- Returns N, or nil if the text is not the version of a document.
local function representation(text)
    if not is_version(string.sub(text, 1, WIDTH)) then return nil end
    if #text == WIDTH then return 1 end
    local n = tonumber(string.match(text, '^%-([1-9]%d?%d?)$', WIDTH + 1))
    return n and n > 1 and n < 256 and n or nil
end

-- Returns whether the document version a is newer than b: by its version, then by its shape.
local function is_newer(a, b)
    local version_a, version_b = string.sub(a, 1, WIDTH), string.sub(b, 1, WIDTH)
    if version_a ~= version_b then return version_a > version_b end
    return representation(a) > representation(b)
end

-- Returns whether the entry holds this document. Compares the length first: the entry may hold any amount.
local function holds(document)
    if redis.call('HSTRLEN', KEYS[1], 'json') ~= #document then return false end
    return redis.call('HGET', KEYS[1], 'json') == (document ~= '' and document)
end

local held = redis.pcall('HMGET', KEYS[1], 'version', 'mac')
if held.err then
    -- Not a hash, so not an entry of ours. HSET would fail on it.
    redis.call('DEL', KEYS[1])
    held = {false, false}
end
local version, mac = held[1], held[2]
local is_entry = version and version ~= ARGV[6] and representation(version)
if is_entry and is_newer(version, ARGV[1]) then
    -- Readers may not even be able to read a larger document.
    is_entry = redis.call('HSTRLEN', KEYS[1], 'json') <= MAX_DOCUMENT
    if is_entry and string.sub(version, 1, WIDTH) == string.sub(ARGV[1], 1, WIDTH) then return -3 end
    if is_entry then return version end
end
if is_entry then
    -- A writer without a key leaves the MAC of another one.
    if version == ARGV[1] and (ARGV[5] == '' or mac == ARGV[5]) and holds(ARGV[2]) then return 0 end
else
    local now = redis.call('TIME')
    if now[1] * 1000 + math.floor(now[2] / 1000) > tonumber(ARGV[4]) then return -2 end
end
-- Removes a document or a MAC that the new version does not have.
if ARGV[2] == '' or (mac and ARGV[5] == '') then redis.call('DEL', KEYS[1]) end
local fields = {'version', ARGV[1]}
if ARGV[2] ~= '' then
    fields[3], fields[4] = 'json', ARGV[2]
end
if ARGV[5] ~= '' then
    fields[#fields + 1] = 'mac'
    fields[#fields + 1] = ARGV[5]
end
redis.call('HSET', KEYS[1], unpack(fields))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
if ARGV[7] then redis.call('PUBLISH', ARGV[7], ARGV[8]) end
return 1
