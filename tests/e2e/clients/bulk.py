"""bulk.py TARGET MEGABYTES: sends that much through one bidirectional stream and checks that every byte comes back."""
import hashlib, sys
from echo import Echo, connect, request

target, megabytes = sys.argv[1], int(sys.argv[2])
block = bytes(range(256)) * 4096
sent, received, size = hashlib.sha256(), hashlib.sha256(), 0


def messages():
    for number in range(megabytes):
        payload = number.to_bytes(4, "big") + block[4:]
        sent.update(payload)
        yield request(payload)


for reply in Echo(connect(target)).chat(messages(), timeout=110):
    received.update(reply.payload)
    size += len(reply.payload)
assert size == megabytes << 20 and sent.digest() == received.digest(), f"{size} bytes came back, not all as sent"
print("ok", size)
