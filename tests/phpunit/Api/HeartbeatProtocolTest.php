<?php

namespace Heartbus\Tests\Api;

use Heartbus\Tests\TestCase;
use PfinalClub\AsyncioHeartbeat\Protocol\{HeartbeatProtocol, Message};

final class HeartbeatProtocolTest extends TestCase
{
    public function test_constants(): void
    {
        self::assertSame('1.0.0', HeartbeatProtocol::VERSION);
        self::assertSame(10, HeartbeatProtocol::DEFAULT_HEARTBEAT_INTERVAL);
        self::assertSame(30, HeartbeatProtocol::DEFAULT_HEARTBEAT_TIMEOUT);
        self::assertSame(10485760, HeartbeatProtocol::MAX_MESSAGE_LENGTH);
        self::assertSame(7, HeartbeatProtocol::MIN_MESSAGE_LENGTH);
        self::assertSame(65535, HeartbeatProtocol::MAX_CHANNEL_ID);
    }

    public function test_a_message_is_valid_up_to_its_limits_and_not_beyond(): void
    {
        $valid = fn (int $type, string $payload = '', int $channel = 0): bool => HeartbeatProtocol::validateMessage(new Message($type, $payload, $channel));
        self::assertTrue($valid(1));
        self::assertTrue($valid(8));
        self::assertFalse($valid(0));
        self::assertFalse($valid(9));
        self::assertTrue($valid(3, '', 65535));
        self::assertFalse($valid(3, '', 65536));
        self::assertFalse($valid(3, '', -1));
        self::assertTrue($valid(3, str_repeat('x', 10485760)));
        self::assertFalse($valid(3, str_repeat('x', 10485761)));
    }

    public function test_valid_types_are_one_to_eight(): void
    {
        $valid = array_filter(range(-1, 260), fn (int $type): bool => HeartbeatProtocol::isValidMessageType($type));
        self::assertSame([1, 2, 3, 4, 5, 6, 7, 8], array_values($valid));
    }

    public function test_the_timeout_is_three_intervals(): void
    {
        self::assertSame(30, HeartbeatProtocol::calculateTimeout(10));
        self::assertSame(0, HeartbeatProtocol::calculateTimeout(0));
        self::assertSame(-3, HeartbeatProtocol::calculateTimeout(-1));
    }

    public function test_info(): void
    {
        self::assertSame([
            'version' => '1.0.0', 'magic' => '0xAB12', 'header_length' => 7, 'max_message_length' => 10485760, 'max_channel_id' => 65535,
            'message_types' => ['HEARTBEAT_REQ' => 1, 'HEARTBEAT_RES' => 2, 'DATA' => 3, 'PING' => 4, 'PONG' => 5, 'REGISTER' => 6, 'UNREGISTER' => 7, 'ERROR' => 8],
        ], HeartbeatProtocol::getInfo());
    }
}
