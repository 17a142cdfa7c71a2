"""What scripts share that run a gateway beside endpoints of their own, on the loopback of their namespace."""
import contextlib, json, signal, sys, time, urllib.request

FAILED, HELD = [], []


def check(name, got, want=True):
    if got == want:
        HELD.append(name)
    else:
        FAILED.append(f"{name}: {str(got)[:300]}, want {str(want)[:300]}")


@contextlib.contextmanager
def ready(admin, processes):
    """The first of them is the gateway: goes on when it serves, and ends all of them after that."""
    try:
        end = time.monotonic() + 20
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{admin}/ready")
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
            process.wait(10)


def finish(log):
    """Says what was found, and ends."""
    print(json.dumps({"held": len(HELD), "failed": FAILED}))
    if FAILED:
        with open(log) as file:
            print(file.read()[-2000:], file=sys.stderr)
    sys.exit(1 if FAILED else 0)
