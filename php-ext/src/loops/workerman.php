<?php
// Heartbus on the event loop of Workerman 4 and 5. Control plane only: it says when to start, to look and to stop, and
// lends Workerman's commands the numbers they show. Events and callbacks stay in the extension. Loaded by the extension
// when Workerman is there.

use Workerman\Connection\ConnectionInterface;
use Workerman\Connection\TcpConnection;
use Workerman\Events\EventInterface;
use Workerman\Timer;
use Workerman\Worker;

// Words of the command line that begin something, `start` alone where nothing ran before.
$has = static fn (string ...$words): bool => \array_intersect($words,
    [...$_SERVER['argv'] ?? [], ...\explode(' ', \property_exists(Worker::class, 'command') ? Worker::$command : '')]) !== [];

// A worker that replaces another is to run what is on disk by now. opcache looks there once per request at most, and all workers
// are one request to it, begun when the master was; PHP itself remembers for two minutes where links led to.
$began = \time();
$refresh = static function () use ($began): void {
    \clearstatcache(true);
    if (!\function_exists('opcache_get_status') || !\function_exists('opcache_invalidate')) {
        return;
    }
    // It remembers where links led to as well, unless it is told to look.
    \ini_set('opcache.revalidate_path', '1');
    // Warns where opcache.restrict_api keeps it from this script.
    foreach (\array_keys(@\opcache_get_status(true)['scripts'] ?? []) as $file) {
        $found = @\stat($file);
        $isNew = $found === false || \max($found['mtime'], $found['ctime']) >= $began;
        if ($isNew || \ini_get('opcache.validate_timestamps')) {
            \opcache_invalidate($file, $isNew);
        }
    }
};

// The master counts its seconds with alarms while it stops, and ends with one that is still to come. PHP gives all signals their default
// action back before it has ended: the alarm of such a moment would kill the master, and make a stop that went well look like a crash.
$calm = static function (): void {
    static $isDone = false;
    $isDone || \register_shutdown_function(static function (): void {
        // Workers have a loop for their seconds: an alarm is the application's there.
        Worker::$globalEvent === null && \pcntl_alarm(0);
    });
    $isDone = true;
};

// One process for all of it: the engine has its own threads.
$prepare = static function (Worker $worker, string $name, \Closure $start) use ($refresh, $calm): void {
    $calm();
    $worker->name = $name;
    $worker->count = 1;
    $worker->onWorkerStart = static function (Worker $worker) use ($start, $refresh): void {
        $refresh();
        $start($worker->id);
    };
    // Telling every client takes up to 1.5 s, and then the workers; Workerman kills 2 s after Ctrl-C, of which it waits one.
    Worker::$stopTimeout = \max(Worker::$stopTimeout, 5);
};

// What this process is where it only runs callbacks: whether a graceful stop has to wait, and whether it is being replaced.
$seat = null;

// Version 5 hides it.
$handle = \Closure::bind(static function (int $signal): void {
    Worker::signalHandler($signal);
}, null, Worker::class);

$onSignal = static function (int $signal, callable $handler): void {
    $loop = Worker::getEventLoop();
    if (\method_exists($loop, 'onSignal')) {
        $loop->onSignal($signal, $handler);
    } else {
        $loop->add($signal, EventInterface::EV_SIGNAL, $handler);
    }
};

$count = static function (array $numbers, int $sign): void {
    foreach ($numbers as $name => $number) {
        ConnectionInterface::$statistics[$name] += $sign * $number;
    }
};

return [
    // A loop exists in worker processes only.
    'running' => static fn (): bool => Worker::$globalEvent !== null,

    'starting' => static fn (): bool => $has('start', 'restart'),

    'worker' => static function (string $name, \Closure $start) use ($prepare): void {
        $prepare(new Worker(), $name, static fn () => $start());
    },

    // Workerman calls listen() in the master once it knows that it starts, and in each worker. The engine listens in the
    // worker; the master only looks whether it will be able to, because a master that cannot listen ends.
    'server' => static function (string $name, string $user, string $group, string $address, \Closure $check, \Closure $start, \Closure $stop)
        use ($prepare, $has): void {
        $worker = new class($address, $check) extends Worker {
            public function __construct(private string $address, private ?\Closure $check)
            {
                parent::__construct();
            }

            public function listen(bool $autoAccept = true): void
            {
                $check = $this->check;
                $this->check = null;
                if ($check !== null) {
                    $this->reloadable = $check($this->user, $this->group);
                }
            }

            public function getSocketName(): string
            {
                return $this->address;
            }
        };
        $prepare($worker, $name, static fn () => $start());
        [$worker->user, $worker->group] = [$user, $group];
        $worker->onWorkerStop = static function () use ($stop): void {
            // A graceful stop waits for the connections first: see 'watch'.
            if (!Worker::getGracefulStop() || ConnectionInterface::$statistics['connection_count'] <= 0) {
                $stop();
            }
        };
        // `start -d` ends in this process before the daemon looks, so the exit code is found out here. A server that runs
        // already is another matter: Workerman says so, and does not become a daemon.
        if ($has('start')) {
            try {
                $check($user, $group);
            } catch (\Throwable) {
                $process = \getmypid();
                \register_shutdown_function(static function () use ($process): void {
                    if (Worker::$daemonize && \getmypid() === $process) {
                        exit(255);
                    }
                });
            }
        }
    },

    // Beside a server's worker, for its callbacks.
    'workers' => static function (string $name, string $user, string $group, int $count, \Closure $start, \Closure $stop, \Closure $isBusy)
        use ($prepare, &$seat): void {
        $worker = new Worker();
        $prepare($worker, $name, static function (int $number) use ($start, $isBusy, &$seat): void {
            $seat = (object) ['isBusy' => $isBusy, 'isReplaced' => false];
            $start($number);
        });
        [$worker->count, $worker->user, $worker->group] = [$count, $user, $group];
        $worker->onWorkerStop = static function () use ($stop, &$seat): void {
            if (!Worker::getGracefulStop() || ConnectionInterface::$statistics['connection_count'] <= 0) {
                $stop($seat !== null && $seat->isReplaced);
            }
        };
    },

    // Only a Workerman that could not start returns. Version 5 has caught and logged the reason then.
    'run' => static function (\Closure $check): void {
        Worker::runAll();
        if (Worker::$globalEvent !== null) {
            exit(250); // A worker whose callback threw: version 5 has logged that.
        }
        $check();
        throw new \RuntimeException('Workerman could not start; its log says why');
    },

    // Stops all of Workerman: a worker that only ends itself is started again.
    'stop' => static function (): void {
        \posix_kill(\posix_getppid(), SIGINT);
    },

    'watch' => static function ($stream, \Closure $ready, \Closure $own, \Closure $statistics, \Closure $connections, \Closure $closeDoors,
        \Closure $patience, \Closure $waits, \Closure $stop) use ($handle, $onSignal, $count, &$seat): void {
        $loop = Worker::getEventLoop();
        if (\method_exists($loop, 'onReadable')) {
            $loop->onReadable($stream, $ready);
        } else {
            $loop->add($stream, EventInterface::EV_READ, $ready);
        }

        if (Worker::getAllWorkers() === []) {
            return; // A loop of Workerman's that somebody runs without Workerman's processes: nobody sends commands.
        }

        // `status`: the engine's connections and requests count with Workerman's own while it writes them down, and ours
        // that go out. Timers it asks its loop for: as many as ours stand there meanwhile.
        $onSignal(SIGIOT, static function (int $signal) use ($handle, $count, $own, $statistics, &$waitsFor): void {
            $numbers = $statistics();
            if ($waitsFor !== null) {
                $numbers['connection_count'] = 0; // counted already
            }
            ['connections' => $connections, 'timers' => $timers] = $own();
            $numbers['connection_count'] += $connections;
            $stand = [];
            while (\count($stand) < $timers) {
                $stand[] = Timer::add(86400, static fn () => null);
            }
            $count($numbers, 1);
            $handle($signal);
            $count($numbers, -1);
            \array_map(Timer::del(...), $stand);
        });

        // `connections`: what Workerman asks a connection for its row.
        $onSignal(SIGIO, static function (int $signal) use ($handle, $connections): void {
            $own = TcpConnection::$connections;
            foreach ($connections() as $row) {
                TcpConnection::$connections["heartbus {$row['id']}"] = new class(...$row) {
                    public string $transport = 'tcp';
                    public string $protocol = 'heartbeat';

                    public function __construct(public int $id, private string $local, private string $remote, private bool $isIpV6,
                        public int $bytesRead, public int $bytesWritten, private int $waitingIn, private int $waitingOut)
                    {
                    }

                    public function isIpV4(): bool
                    {
                        return !$this->isIpV6;
                    }

                    public function isIpV6(): bool
                    {
                        return $this->isIpV6;
                    }

                    public function getRecvBufferQueueSize(): int
                    {
                        return $this->waitingIn;
                    }

                    public function getSendBufferQueueSize(): int
                    {
                        return $this->waitingOut;
                    }

                    public function getLocalAddress(): string
                    {
                        return $this->local;
                    }

                    public function getRemoteAddress(): string
                    {
                        return $this->remote;
                    }

                    public function getStatus(bool $raw = true): int|string
                    {
                        return $raw ? TcpConnection::STATUS_ESTABLISHED : 'ESTABLISHED';
                    }
                };
            }
            $handle($signal);
            TcpConnection::$connections = $own;
        });

        // What a graceful stop waits for: connections, or the server whose callbacks run here.
        $left = static fn (): int => $seat === null ? $statistics()['connection_count'] : (int) ($seat->isBusy)();

        // `stop -g` and `reload -g`: Workerman waits while connections are counted. Nobody new comes in meanwhile, and who stays
        // too long is not waited for.
        $waitsFor = null;
        $graceful = static function (int $signal) use ($handle, $left, $closeDoors, $patience, $waits, $stop, $seat, &$waitsFor): void {
            \Heartbus\reopen_logs();
            if ($waitsFor !== null) {
                $handle($signal);
                return;
            }
            $waitsFor = $left();
            ConnectionInterface::$statistics['connection_count'] += $waitsFor;
            $handle($signal);
            if (!Worker::getGracefulStop() || Worker::getStatus() !== Worker::STATUS_SHUTDOWN) {
                // A worker that is not reloadable goes on.
                ConnectionInterface::$statistics['connection_count'] -= $waitsFor;
                $waitsFor = null;
                return;
            }
            $closeDoors();
            // However it ends now, with the last connection or by another signal.
            \register_shutdown_function($stop);
            $own = static function () use (&$waitsFor): int {
                return \max(0, ConnectionInterface::$statistics['connection_count'] - $waitsFor);
            };
            // Where only callbacks run, the engine's process says whom it waits for.
            $tell = static function (bool $isOver) use ($own, $waits, $seat, &$waitsFor): void {
                if ($own() > 0 || $seat === null && $waitsFor > 0) {
                    $waits($own(), $isOver);
                }
            };
            $tell(false);
            $began = \hrtime(true);
            $longest = $patience();
            $isOver = false;
            Timer::add(0.05, static function () use ($handle, $left, $tell, $began, $longest, &$waitsFor, &$isOver): void {
                $still = $left();
                ConnectionInterface::$statistics['connection_count'] += $still - $waitsFor;
                $waitsFor = $still;
                if (ConnectionInterface::$statistics['connection_count'] <= 0) {
                    Worker::stopAll();
                } elseif (!$isOver && $longest !== null && \hrtime(true) - $began >= $longest * 1e9) {
                    $isOver = true;
                    $tell(true);
                    // Whoever is left is stopped as by a stop that is not graceful.
                    $handle(SIGINT);
                }
            });
        };
        $onSignal(SIGQUIT, $graceful);
        if ($seat === null) {
            $onSignal(SIGUSR2, $graceful);
            // `reload`: Workerman opens its own files anew as well.
            $onSignal(SIGUSR1, static function (int $signal) use ($handle): void {
                \Heartbus\reopen_logs();
                $handle($signal);
            });
            return;
        }

        // `reload`: the engine goes on, and gives what waits to the others or to whoever comes instead.
        $replace = static function (int $signal) use ($handle, $seat): void {
            $seat->isReplaced = true;
            $handle($signal);
        };
        $onSignal(SIGUSR1, $replace);
        $onSignal(SIGUSR2, $replace);
    },
];
