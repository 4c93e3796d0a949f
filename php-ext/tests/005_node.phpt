--TEST--
A Node is a plain value with typed properties
--EXTENSIONS--
heartbus
--FILE--
<?php
use PfinalClub\AsyncioHeartbeat\Node\Node;

$node = new Node(id: 'n1', ip: '10.0.0.1', port: '9501', connectionId: 7);
$node->setMetadata('version', '1.0');
$node->updateHeartbeat();
$node->updateMessage();
var_dump($node->port, $node->heartbeatCount, $node->totalMessages, $node->isOnline(), $node->isTimeout(60));
var_dump($node->getMetadata('version'), $node->getMetadata('nothing', 'a default'));
$node->markOffline();
echo $node->getSummary(), "\n";
echo implode(' ', array_keys($node->toArray())), "\n";
foreach (['id' => 'n2', 'status' => []] as $property => $value) {
    try {
        $node->$property = $value;
    } catch (Error $error) {
        echo get_class($error), ': ', $error->getMessage(), "\n";
    }
}
?>
--EXPECTF--
int(9501)
int(1)
int(1)
bool(true)
bool(false)
string(3) "1.0"
string(9) "a default"
Node[n1] 10.0.0.1:9501 - offline (heartbeats: 1, lifetime: %fs)
id ip port connection_id status last_heartbeat seconds_since_heartbeat heartbeat_count total_messages created_at lifetime metadata
Error: Cannot modify readonly property PfinalClub\AsyncioHeartbeat\Node\Node::$id
TypeError: Cannot assign array to property PfinalClub\AsyncioHeartbeat\Node\Node::$status of type string
