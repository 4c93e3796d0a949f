--TEST--
HeartbeatProtocol describes and checks the protocol
--EXTENSIONS--
heartbus
--FILE--
<?php
use PfinalClub\AsyncioHeartbeat\Protocol\{HeartbeatProtocol, Message};

echo json_encode(HeartbeatProtocol::getInfo(), JSON_PRETTY_PRINT), "\n";
var_dump(HeartbeatProtocol::calculateTimeout(10), HeartbeatProtocol::isValidMessageType(8), HeartbeatProtocol::isValidMessageType(9));
var_dump(HeartbeatProtocol::validateMessage(new Message(3, '', HeartbeatProtocol::MAX_CHANNEL_ID)));
var_dump(HeartbeatProtocol::validateMessage(new Message(3, '', HeartbeatProtocol::MAX_CHANNEL_ID + 1)));
?>
--EXPECT--
{
    "version": "1.0.0",
    "magic": "0xAB12",
    "header_length": 7,
    "max_message_length": 10485760,
    "max_channel_id": 65535,
    "message_types": {
        "HEARTBEAT_REQ": 1,
        "HEARTBEAT_RES": 2,
        "DATA": 3,
        "PING": 4,
        "PONG": 5,
        "REGISTER": 6,
        "UNREGISTER": 7,
        "ERROR": 8
    }
}
int(30)
bool(true)
bool(false)
bool(true)
bool(false)
