-- heartbus.h for LuaJIT: its FFI reads include/heartbus_ffi.h as it is, so nothing is declared twice and nothing compiled.
-- HEARTBUS_HEADER and HEARTBUS_LIBRARY name the two files, where they are not installed in the usual places.
local ffi = require 'ffi'

local ABI = 1 -- HEARTBUS_ABI_VERSION of the header that this file was written after.
local header = assert(io.open(os.getenv 'HEARTBUS_HEADER' or '/usr/local/include/heartbus_ffi.h'))
ffi.cdef(header:read '*a')
header:close()
ffi.cdef [[
    struct heartbus_pollfd { int fd; short events, revents; };
    int poll(struct heartbus_pollfd *fds, unsigned long count, int timeout_ms);
]]
local C = ffi.load(os.getenv 'HEARTBUS_LIBRARY' or 'libheartbus.so.' .. ABI)
assert(C.heartbus_abi_version() == ABI, 'libheartbus has another ABI than this file was written for')

local M = { C = C, version = ffi.string(C.heartbus_version()) }

-- What a status says, thrown as a table: `status` is its name, `text` the words.
local refusal = { __tostring = function(self) return self.status .. ': ' .. self.text end }
local function check(status)
    if status ~= C.HEARTBUS_OK then
        local text = ffi.string(C.heartbus_last_error()) -- Copied: the next error replaces it.
        error(setmetatable({ status = ffi.string(C.heartbus_status_name(status)), text = text }, refusal), 0)
    end
end
M.check = check

local function text(pointer, length) return pointer ~= nil and ffi.string(pointer, length) or '' end

-- A copy: it stays valid after the next poll.
local function copy(event)
    return {
        name = ffi.string(C.heartbus_event_name(event.type)), node = text(event.node_id, event.node_id_len),
        payload = text(event.payload, event.payload_len), text = text(event.text, event.text_len), ip = text(event.ip, event.ip_len),
        port = event.port, code = event.code, count = event.count, client_id = event.client_id,
        connection_id = event.connection_id, channel_id = event.channel_id,
    }
end

-- What servers, groups of clients and logs have in common.
local function handle(kind, methods)
    local poll, free, fd = C['heartbus_' .. kind .. '_poll'], C['heartbus_' .. kind .. '_free'], C['heartbus_' .. kind .. '_fd']
    methods.__index = methods
    local batch = 64

    local function new(address)
        return setmetatable({ handle = address, events = ffi.new('heartbus_event[?]', batch), count = ffi.new 'size_t[1]' }, methods)
    end

    -- A batch of events; nil once it is stopped and every event was taken. Without a number of milliseconds it waits without end.
    function methods:poll(timeout_ms)
        local status = poll(self.handle, self.events, batch, timeout_ms or -1, self.count)
        if status == C.HEARTBUS_CLOSED then return nil end
        check(status)
        local events = {}
        for i = 0, tonumber(self.count[0]) - 1 do events[i + 1] = copy(self.events[i]) end
        return events
    end

    function methods:fd()
        local place = ffi.new 'int[1]'
        check(fd(self.handle, place))
        return place[0]
    end

    -- Stops and frees it, which takes up to 1.5 s and closes its descriptor: watch that no longer.
    function methods:close() check(free(self.handle)) end

    return new
end

local Server, Clients, Log = {}, {}, {}
local new_server, new_clients, new_log = handle('server', Server), handle('clients', Clients), handle('log', Log)

-- `config` is JSON text, `events` a sum such as C.HEARTBUS_ON_REGISTER + C.HEARTBUS_ON_DATA.
function M.server(config, events)
    local place = ffi.new 'heartbus_server *[1]'
    check(C.heartbus_server_start(config, #config, events, place))
    return new_server(place[0])
end

function Server:port()
    local place = ffi.new 'uint16_t[1]'
    check(C.heartbus_server_port(self.handle, place))
    return place[0]
end

function Server:send(node, payload, channel) check(C.heartbus_server_send(self.handle, node, #node, payload, #payload, channel or 0)) end

function M.clients(config)
    local place = ffi.new 'heartbus_clients *[1]'
    check(C.heartbus_clients_start(config, config and #config or 0, place))
    return new_clients(place[0])
end

function Clients:connect(config)
    local place = ffi.new 'uint64_t[1]'
    check(C.heartbus_client_connect(self.handle, config, #config, place))
    return place[0]
end

function Clients:send(client, payload, channel) check(C.heartbus_client_send(self.handle, client, payload, #payload, channel or 0)) end

function Clients:disconnect(client) check(C.heartbus_client_disconnect(self.handle, client)) end

-- Of one server or group of clients, or of all.
function M.log(level, of)
    local place = ffi.new 'heartbus_log *[1]'
    check(of and C.heartbus_log_start_for(of.handle, level, place) or C.heartbus_log_start(level, place))
    return new_log(place[0])
end

-- Waits until one of these handles has something to tell, or for so long at most. A program with a loop of its own (luv, cqueues)
-- gives it fd() instead.
function M.wait(handles, timeout_ms)
    local fds = ffi.new('struct heartbus_pollfd[?]', #handles)
    for i, of in ipairs(handles) do fds[i - 1].fd, fds[i - 1].events = of:fd(), 1 end
    return ffi.C.poll(fds, #handles, timeout_ms or -1) > 0
end

return M
