<?php

namespace Heartbus\Tests;

use PHPUnit\Framework\Assert;

/** A PHP library that tests use when it is there: in vendor/, or in the folder that an environment variable names. */
final class Library
{
    private const KNOWN = [
        'Revolt' => ['revolt/event-loop', 'HEARTBUS_REVOLT', 'Revolt\\', 'EventLoop.php'],
        'ReactPHP' => ['react/event-loop', 'HEARTBUS_REACT', 'React\\EventLoop\\', 'Loop.php'],
        'PSR-3' => ['psr/log', 'HEARTBUS_PSR_LOG', 'Psr\\Log\\', 'LoggerInterface.php'],
        // 3.0 or newer: before that a task belongs to no CancellationScope. What runs with 2.x is in Views\CallbacksTest.
        'pfinal-asyncio 3' => ['pfinalclub/asyncio', 'HEARTBUS_ASYNCIO', 'PfinalClub\\Asyncio\\', 'Concurrency/CancellationScope.php'],
    ];

    /** PHP code that lets a script autoload the library; the test is skipped where there is none. */
    public static function autoload(string $name): string
    {
        [$package, $variable, $prefix, $file] = self::KNOWN[$name];
        // A variable may name several folders; the last is the newest version by habit, and one is enough here.
        $named = array_reverse(explode(PATH_SEPARATOR, (string) getenv($variable)));
        foreach ([dirname(__DIR__, 3) . "/vendor/$package", ...$named] as $folder) {
            if ($folder !== '' && is_file("$folder/src/$file")) {
                return sprintf('spl_autoload_register(function (string $class): void {
                    $file = %s . strtr(substr($class, %d), "\\\\", "/") . ".php";
                    if (str_starts_with($class, %s) && is_file($file)) { require_once $file; }
                });', var_export("$folder/src/", true), strlen($prefix), var_export($prefix, true))
                    . (is_file($functions = "$folder/src/functions.php") ? sprintf('require %s;', var_export($functions, true)) : '') . "\n";
            }
        }
        Assert::markTestSkipped("$name, which has src/$file, is neither in vendor/$package nor in the folder that $variable names");
    }
}
