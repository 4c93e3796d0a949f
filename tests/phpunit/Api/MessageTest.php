<?php

namespace Heartbus\Tests\Api;

use ArgumentCountError;
use Heartbus\Tests\TestCase;
use Heartbus\Tests\Vectors;
use PfinalClub\AsyncioHeartbeat\Protocol\Message;
use RuntimeException;
use TypeError;

/** Protocol\Message, row by row against the golden vectors, and as a PHP class. */
final class MessageTest extends TestCase
{
    public function test_constants_are_those_of_the_wire(): void
    {
        self::assertSame(0xAB12, Message::MAGIC);
        self::assertSame(7, Message::HEADER_LENGTH);
        self::assertSame([1, 2, 3, 4, 5, 6, 7, 8], [
            Message::TYPE_HEARTBEAT_REQ, Message::TYPE_HEARTBEAT_RES, Message::TYPE_DATA, Message::TYPE_PING, Message::TYPE_PONG,
            Message::TYPE_REGISTER, Message::TYPE_UNREGISTER, Message::TYPE_ERROR,
        ]);
    }

    /** @dataProvider encoded */
    public function test_encodes_byte_for_byte_like_the_reference(string $bytes, int $type, int $channel, string $payload): void
    {
        self::assertSame(bin2hex($bytes), bin2hex((new Message($type, $payload, $channel))->encode()));
    }

    public static function encoded(): iterable
    {
        return Vectors::rows('both', 'encode');
    }

    /** @dataProvider decoded */
    public function test_decodes_like_the_reference(string $bytes, int $type, int $channel, string $payload): void
    {
        // PHP reports the truncation of a fraction; what it truncates to is what we compare.
        $message = @Message::decode($bytes);
        self::assertSame([$type, $channel, bin2hex($payload)], [$message->type, $message->channelId, bin2hex($message->payload)]);
    }

    public static function decoded(): iterable
    {
        return Vectors::rows('both', 'decode');
    }

    /** @dataProvider incomplete */
    public function test_waits_for_more_when_a_frame_is_incomplete(string $bytes): void
    {
        self::assertNull(Message::decode($bytes));
    }

    public static function incomplete(): iterable
    {
        return Vectors::rows('incomplete');
    }

    /** @dataProvider invalid */
    public function test_refuses_an_invalid_body(string $bytes): void
    {
        if (getenv('HEARTBUS_REFERENCE') && preg_match('/payload (list|object)|channel_id|duplicate, then a bad one/', $this->dataName())) {
            $this->expectException(TypeError::class);
        } else {
            $this->expectException(RuntimeException::class);
            $this->expectExceptionMessage('Invalid message payload');
        }
        Message::decode($bytes);
    }

    public static function invalid(): iterable
    {
        return Vectors::rows('invalid');
    }

    /** @dataProvider wrongMagic */
    public function test_refuses_a_wrong_magic_and_names_it(string $bytes, string $magic): void
    {
        $this->expectException(RuntimeException::class);
        $this->expectExceptionMessage("Invalid message magic: 0x$magic");
        Message::decode($bytes);
    }

    public static function wrongMagic(): iterable
    {
        return Vectors::rows('magic');
    }

    public function test_a_cut_frame_is_incomplete_wherever_it_is_cut(): void
    {
        $bytes = (new Message(Message::TYPE_DATA, 'a/b "q" é中😀', 7))->encode();
        for ($length = 0; $length < strlen($bytes); $length++) {
            self::assertNull(Message::decode(substr($bytes, 0, $length)), "cut after $length bytes");
        }
        self::assertSame('a/b "q" é中😀', Message::decode($bytes)->payload);
    }

    public function test_everything_json_can_carry_survives_the_round_trip(): void
    {
        mt_srand(7);
        for ($round = 0; $round < 200; $round++) {
            $text = '';
            for ($length = mt_rand(0, 200); $length > 0; $length--) {
                $text .= mb_chr([mt_rand(0, 0x7F), mt_rand(0x80, 0x7FF), mt_rand(0x800, 0xD7FF), mt_rand(0xE000, 0xFFFF), mt_rand(0x10000, 0x10FFFF)][mt_rand(0, 4)]);
            }
            $bytes = (new Message(Message::TYPE_DATA, $text, $round))->encode();
            self::assertSame(json_encode(['channel_id' => $round, 'payload' => $text]), substr($bytes, 7));
            self::assertSame($text, Message::decode($bytes)->payload);
        }
    }

    public function test_every_single_byte_encodes_as_json_encode_says(): void
    {
        for ($byte = 0; $byte < 256; $byte++) {
            $expected = json_encode(['channel_id' => 0, 'payload' => chr($byte)]) ?: '';
            self::assertSame(pack('nCN', 0xAB12, 3, strlen($expected)) . $expected, (new Message(3, chr($byte)))->encode(), "byte $byte");
        }
    }

    public function test_a_large_payload_survives(): void
    {
        $text = str_repeat('0123456789abcdef/é', 100_000);
        self::assertSame($text, Message::decode((new Message(3, $text, 1))->encode())->payload);
    }

    public function test_package_length_is_zero_for_too_little_and_minus_one_for_a_wrong_magic(): void
    {
        self::assertSame(0, Message::getPackageLength(''));
        self::assertSame(0, Message::getPackageLength("\xAB\x12\x04\0\0\0"));
        self::assertSame(-1, Message::getPackageLength('GET / HTTP/1.1'));
        self::assertSame(7, Message::getPackageLength("\xAB\x12\x04\0\0\0\0"));
        self::assertSame(36, Message::getPackageLength((new Message(4))->encode() . 'more'));
        self::assertSame(7 + 0xFFFFFFFF, Message::getPackageLength("\xAB\x12\x04\xFF\xFF\xFF\xFF"));
    }

    public function test_type_names(): void
    {
        $names = [0 => 'UNKNOWN', 'HEARTBEAT_REQ', 'HEARTBEAT_RES', 'DATA', 'PING', 'PONG', 'REGISTER', 'UNREGISTER', 'ERROR', 'UNKNOWN'];
        foreach ($names as $type => $name) {
            self::assertSame($name, (new Message($type))->getTypeName());
        }
        self::assertSame('UNKNOWN', (new Message(-1))->getTypeName());
        self::assertSame('UNKNOWN', (new Message(257))->getTypeName());
    }

    public function test_to_array(): void
    {
        self::assertSame(['type' => 3, 'type_name' => 'DATA', 'channel_id' => 9, 'payload' => 'x'], (new Message(3, 'x', 9))->toArray());
    }

    public function test_defaults_and_named_arguments(): void
    {
        $message = new Message(4);
        self::assertSame([4, '', 0], [$message->type, $message->payload, $message->channelId]);
        $message = new Message(channelId: 5, type: 3, payload: 'p');
        self::assertSame([3, 'p', 5], [$message->type, $message->payload, $message->channelId]);
    }

    public function test_heartbeats_carry_the_time(): void
    {
        $since = microtime(true);
        foreach ([1 => Message::createHeartbeatRequest(), 2 => Message::createHeartbeatResponse()] as $type => $message) {
            self::assertSame($type, $message->type);
            self::assertSame(0, $message->channelId);
            $payload = json_decode($message->payload, true);
            self::assertSame(['timestamp'], array_keys($payload));
            self::assertSince($since, $payload['timestamp']);
        }
    }

    public function test_create_register_carries_id_metadata_and_time(): void
    {
        $payload = json_decode(Message::createRegister('n1', ['v' => '1.0', 'list' => [1, 2], 'ü' => null])->payload, true);
        self::assertSame(['node_id', 'metadata', 'timestamp'], array_keys($payload));
        self::assertSame(['n1', ['v' => '1.0', 'list' => [1, 2], 'ü' => null]], [$payload['node_id'], $payload['metadata']]);
        self::assertStringContainsString('"metadata":[],', Message::createRegister('n1')->payload);
        self::assertStringStartsWith('{"node_id":"a\/\u00e9","metadata":{"k":"\u4e2d"},"timestamp":', Message::createRegister('a/é', ['k' => '中'])->payload);
    }

    public function test_create_data_and_error(): void
    {
        $data = Message::createData('hello', 12);
        self::assertSame([3, 'hello', 12], [$data->type, $data->payload, $data->channelId]);
        self::assertSame(0, Message::createData('hello')->channelId);
        $error = Message::createError('Rate limit exceeded', 429);
        self::assertSame([8, '{"message":"Rate limit exceeded","code":429}', 0], [$error->type, $error->payload, $error->channelId]);
        self::assertSame('{"message":"x","code":0}', Message::createError('x')->payload);
    }

    public function test_properties_are_public_typed_and_mutable(): void
    {
        $message = new Message(3, 'a', 1);
        $message->type = 4;
        $message->payload = 'b';
        $message->channelId = 2;
        self::assertSame([4, 'b', 2], [$message->type, $message->payload, $message->channelId]);
        $message->type = '5'; // weak mode converts, as for any typed property
        self::assertSame(5, $message->type);
        $this->expectException(TypeError::class);
        $message->type = 'five';
    }

    public function test_arguments_follow_php_s_weak_mode(): void
    {
        self::assertSame(3, (new Message('3'))->type);
        self::assertSame('12', (new Message(3, 12))->payload);
        try {
            new Message('three');
            self::fail('a word is no type');
        } catch (TypeError $error) {
            self::assertStringContainsString('must be of type int, string given', $error->getMessage());
        }
        $this->expectException(ArgumentCountError::class);
        new Message();
    }

    public function test_clones_compares_and_serializes_like_any_object(): void
    {
        $message = new Message(3, "bytes \xFF\0", 4);
        $clone = clone $message;
        $clone->payload = 'other';
        self::assertSame("bytes \xFF\0", $message->payload);
        self::assertEquals($message, unserialize(serialize($message)));
        self::assertTrue($message == new Message(3, "bytes \xFF\0", 4));
        self::assertSame(['type' => 3, 'payload' => 'p', 'channelId' => 1], get_object_vars(new Message(3, 'p', 1)));
        self::assertSame('{"type":3,"payload":"p","channelId":1}', json_encode(new Message(3, 'p', 1)));
    }

    public function test_can_be_extended(): void
    {
        $message = new class (3, 'p', 1) extends Message {
            public string $note = 'mine';

            public function encode(): string
            {
                return 'own:' . parent::encode();
            }
        };
        self::assertStringStartsWith("own:\xAB\x12", $message->encode());
        self::assertInstanceOf(Message::class, clone $message);
        self::assertSame('mine', (clone $message)->note);
    }

    public function test_metadata_that_json_cannot_carry_leaves_the_payload_empty_as_in_the_original(): void
    {
        foreach ([INF, NAN, "\xff"] as $value) {
            self::assertSame('', Message::createRegister('x', ['a' => $value])->payload);
        }
        self::assertStringContainsString('"a":1.5', Message::createRegister('x', ['a' => 1.5])->payload);
    }
}
