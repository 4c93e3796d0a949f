--TEST--
A message survives encoding and decoding, byte for byte as the PHP library writes it
--EXTENSIONS--
heartbus
--FILE--
<?php
use PfinalClub\AsyncioHeartbeat\Protocol\Message;

echo bin2hex((new Message(Message::TYPE_PING))->encode()), "\n";
echo bin2hex(Message::createData('a/b "q" é中😀', 7)->encode()), "\n";

$frame = Message::createData("lines\nand \0 bytes", 456)->encode();
$message = Message::decode($frame);
var_dump($message->type === Message::TYPE_DATA, $message->payload === "lines\nand \0 bytes", $message->channelId);
var_dump($message->getTypeName(), Message::getPackageLength($frame) === strlen($frame));

echo "a part of a frame: ";
var_dump(Message::decode(substr($frame, 0, -1)));
echo "not a frame: ";
try {
    Message::decode("GET / HTTP/1.1\r\n");
} catch (RuntimeException $exception) {
    echo $exception->getMessage(), "\n";
}

$copy = unserialize(serialize($message));
var_dump($copy == $message, (clone $message)->toArray() === $message->toArray());
final class Subclass extends Message {}
var_dump((new Subclass('3', 12))->toArray());
?>
--EXPECT--
ab12040000001d7b226368616e6e656c5f6964223a302c227061796c6f6164223a22227d
ab1203000000407b226368616e6e656c5f6964223a372c227061796c6f6164223a22615c2f62205c22715c22205c75303065395c75346532645c75643833645c7564653030227d
bool(true)
bool(true)
int(456)
string(4) "DATA"
bool(true)
a part of a frame: NULL
not a frame: Invalid message magic: 0x4745
bool(true)
bool(true)
array(4) {
  ["type"]=>
  int(3)
  ["type_name"]=>
  string(4) "DATA"
  ["channel_id"]=>
  int(0)
  ["payload"]=>
  string(2) "12"
}
