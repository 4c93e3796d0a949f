<?php

namespace Heartbus\Tests;

use PHPUnit\Framework\Assert;

/** Free ports, outside of the range that the kernel gives to outgoing connections: nobody takes them by accident. */
final class Port
{
    public static function free(): int
    {
        for ($try = 0; $try < 1000; $try++) {
            $port = random_int(15000, 29999);
            // Without SO_REUSEADDR a port with connections in TIME_WAIT counts as taken, which is just as well.
            if ($server = @stream_socket_server("tcp://0.0.0.0:$port")) {
                fclose($server);
                return $port;
            }
        }
        Assert::fail('no free port');
    }

    /** Whether this machine has IPv6 at all; containers often do not. */
    public static function hasIpv6(): bool
    {
        $server = @stream_socket_server('tcp://[::1]:0');
        return $server && fclose($server);
    }
}
