<?php

namespace Heartbus\Tests;

use Exception;
use PfinalClub\AsyncioHeartbeat\Channel\Channel;
use PfinalClub\AsyncioHeartbeat\Node\Node;
use PfinalClub\AsyncioHeartbeat\Protocol\Message;
use ReflectionMethod;
use RuntimeException;
use Throwable;

/**
 * Calls written down as data, and what they gave, also as data: the same calls can be made to the original library and to
 * the extension. Knows nothing of what the results should be.
 *
 * A call is [target, method, arguments]. Targets: "function", "static Class", the name of an object that an earlier
 * "new Class" call made, "channel 3" and "node x" for those that were seen.
 */
final class Replay
{
    private const NAMESPACE = 'PfinalClub\\AsyncioHeartbeat\\';
    /** Moments and what is measured from them: different at each run. */
    private const TIMES = ['created_at', 'lifetime', 'last_heartbeat', 'seconds_since_heartbeat'];

    /** @var array<string, object> */
    public array $objects = [];
    /** @var list<object> */
    private array $futures = [];
    private array $handled = [];

    /** @return list<mixed> one result for each call, and one for what is left behind */
    public function run(array $calls): array
    {
        $results = array_map($this->call(...), $calls);
        $results[] = $this->left();
        return $results;
    }

    public function call(array $call): mixed
    {
        [$target, $method, $arguments] = $call;
        try {
            // In steps: PHP 8.1.2 frees what it must not when make() throws inside of a call that takes a `...` closure.
            $values = array_map($this->argument(...), $arguments);
            $result = $this->make($target, $method, $values);
            return $this->data($result);
        } catch (Throwable $error) {
            return ['throws' => $error::class, 'message' => $error->getMessage(), 'code' => $error->getCode()];
        }
    }

    /** What the futures and the handlers got. */
    public function left(): array
    {
        $futures = array_map(fn (object $future) => $future->isDone() ? ['done', $this->data($future->getResult())] : ['waits'], $this->futures);
        return ['futures' => $futures, 'handled' => $this->handled];
    }

    private function make(string $target, string $method, array $arguments): mixed
    {
        if ($target === 'function') {
            return $method(...$arguments);
        }
        if (str_starts_with($target, 'static ')) {
            return (self::NAMESPACE . substr($target, 7))::$method(...$arguments);
        }
        if (str_starts_with($method, 'new ')) {
            $this->objects[$target] = new (self::NAMESPACE . substr($method, 4))(...$arguments);
            return null;
        }
        $object = $this->objects[$target] ?? throw new RuntimeException("There is no $target");
        if ($method === 'age') {
            $object->lastHeartbeatTime = microtime(true) - $arguments[0];
            return null;
        }
        if (str_starts_with($method, 'get ')) {
            return $object->{substr($method, 4)};
        }
        if ($method === 'matchRoute') {
            // Private in the original, which never calls it.
            $reflection = new ReflectionMethod($object, $method);
            return $reflection->invoke($object, ...$arguments);
        }
        return $object->$method(...$arguments);
    }

    private function argument(mixed $argument): mixed
    {
        if (is_string($argument) && str_starts_with($argument, '@')) {
            return $this->objects[substr($argument, 1)];
        }
        if ($argument === '!handler') {
            return function (Message $message): void {
                $this->handled[] = $message->toArray();
            };
        }
        if ($argument === '!throws') {
            return fn () => throw new Exception('no');
        }
        return is_array($argument) ? self::value($argument) : $argument;
    }

    /** PHP data from what {@see data()} made of it. */
    private static function value(mixed $data): mixed
    {
        if (!is_array($data)) {
            return $data;
        }
        if (isset($data['hex'])) {
            return hex2bin($data['hex']);
        }
        if (isset($data['float'])) {
            return constant($data['float']);
        }
        return array_combine(array_column($data['array'], 0), array_map(self::value(...), array_column($data['array'], 1)));
    }

    /** Data that JSON keeps as it is: types, order and keys of arrays included. */
    public function data(mixed $value): mixed
    {
        if (is_string($value)) {
            return preg_match('//u', $value) === 1 ? $value : ['hex' => bin2hex($value)];
        }
        if (is_float($value) && !is_finite($value)) {
            return ['float' => is_nan($value) ? 'NAN' : 'INF'];
        }
        if (is_array($value)) {
            $pairs = [];
            foreach ($value as $key => $entry) {
                $pairs[] = [$key, in_array($key, self::TIMES, true) ? 'a time' : $this->data($entry)];
            }
            return ['array' => $pairs];
        }
        if ($value instanceof Channel) {
            $this->objects["channel $value->id"] = $value;
            return ['channel' => $value->id];
        }
        if ($value instanceof Node) {
            $this->objects["node $value->id"] = $value;
            return ['node' => $value->id];
        }
        if ($value instanceof Message) {
            return ['message' => $this->data($value->toArray())];
        }
        if (is_object($value)) {
            $this->futures[] = $value;
            return ['future' => count($this->futures) - 1];
        }
        return $value;
    }
}
