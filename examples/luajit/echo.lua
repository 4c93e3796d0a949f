-- A server and a client in one program: the client says hello, the server answers, both tell what they saw.
--
--     luajit echo.lua
package.path = (arg[0]:match '^(.*)/' or '.') .. '/?.lua;' .. package.path
local heartbus = require 'heartbus'
local C = heartbus.C

local server = heartbus.server('{"host":"127.0.0.1","port":0}', C.HEARTBUS_ON_REGISTER + C.HEARTBUS_ON_DATA + C.HEARTBUS_ON_LEFT)
local clients = heartbus.clients()
local log = heartbus.log(C.HEARTBUS_LOG_INFO, server)
local me = clients:connect(('{"port":%d,"node_id":"lua"}'):format(server:port()))

local function tell_log()
    for _, event in ipairs(log:poll(0)) do print(('log: %s %s'):format(event.text, event.payload)) end
end

local left, finished = false, false
while not (left and finished) do
    assert(heartbus.wait({ server, clients, log }, 20000), 'Nothing happened for 20 seconds')
    for _, event in ipairs(server:poll(0)) do
        print(('server: %s %s %s'):format(event.node, event.name, event.payload))
        if event.name == 'data' then server:send(event.node, 'hello ' .. event.node) end
        left = left or event.name == 'unregister'
    end
    for _, event in ipairs(clients:poll(0)) do
        print(('client: %s %s'):format(event.name, event.payload))
        if event.name == 'client_register' then
            clients:send(me, 'hello')
        elseif event.name == 'client_data' then
            clients:disconnect(me)
        end
        finished = finished or event.name == 'client_finished'
    end
    tell_log()
end

local ok, refused = pcall(server.send, server, 'nobody', '?')
print('refused: ' .. tostring(not ok and refused))
clients:close()
server:close()
tell_log() -- What the server had to say in the end: closing a log drops what waits.
log:close()
