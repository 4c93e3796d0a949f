<?php

namespace Heartbus\Tests;

/** A v1 or v2 frame by hand: pack() and PHP's own json_encode, independent of the code under test. */
final class Frame
{
    public const HEARTBEAT_REQ = 1;
    public const HEARTBEAT_RES = 2;
    public const DATA = 3;
    public const PING = 4;
    public const PONG = 5;
    public const REGISTER = 6;
    public const UNREGISTER = 7;
    public const ERROR = 8;
    public const SUBSCRIBE = 9;
    public const UNSUBSCRIBE = 10;
    public const PUBLISH = 11;
    public const MESSAGE = 12;
    public const ACK = 17;
    public const GOAWAY = 18;

    public function __construct(public int $type, public string $payload = '', public int $channel = 0, public int $dialect = 1)
    {
    }

    public static function v2(int $type, string $payload = '', int $channel = 0): string
    {
        return pack('nCCNN', 0xAB13, $type, 0, strlen($payload), $channel) . $payload;
    }

    public static function bytes(int $type, string $payload = '', int $channel = 0): string
    {
        return self::body($type, json_encode(['channel_id' => $channel, 'payload' => $payload], JSON_THROW_ON_ERROR));
    }

    /** A frame around any body, sensible or not. */
    public static function body(int $type, string $body): string
    {
        return pack('nCN', 0xAB12, $type, strlen($body)) . $body;
    }

    public static function registration(string $nodeId, mixed $metadata = []): string
    {
        return self::bytes(self::REGISTER, json_encode(['node_id' => $nodeId, 'metadata' => $metadata, 'timestamp' => microtime(true)]));
    }

    public static function heartbeat(int $channel = 0): string
    {
        return self::bytes(self::HEARTBEAT_REQ, json_encode(['timestamp' => microtime(true)]), $channel);
    }

    /** The payload as JSON. */
    public function json(): mixed
    {
        return json_decode($this->payload, true, flags: JSON_THROW_ON_ERROR);
    }
}
