"""The demo service over grpcio, without generated code: messages are encoded by hand, so the client shares nothing with the gateway."""
import grpc


def varint(n):
    out = bytearray()
    while True:
        out.append(n & 0x7F | (0x80 if n > 0x7F else 0))
        n >>= 7
        if not n:
            return bytes(out)


def request(payload=b"", count=0, delay_ms=0, fail_with=0):
    out = b""
    if payload:
        out += b"\x0a" + varint(len(payload)) + payload
    for field, value in ((2, count), (3, delay_ms), (4, fail_with)):
        if value:
            out += bytes([field << 3]) + varint(value)
    return out


def read_varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


class Reply:
    def __init__(self, data):
        self.payload, self.endpoint, self.count = b"", "", 0
        at = 0
        while at < len(data):
            key, at = read_varint(data, at)
            if key & 7 == 2:
                size, at = read_varint(data, at)
                value, at = data[at : at + size], at + size
                if key >> 3 == 1:
                    self.payload = value
                elif key >> 3 == 2:
                    self.endpoint = value.decode()
            else:
                self.count, at = read_varint(data, at)


OPTIONS = [("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20),
           ("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]


class Echo:
    def __init__(self, channel):
        name = "/sluice.demo.v1.Echo/"
        same = dict(request_serializer=lambda b: b, response_deserializer=Reply)
        self.say = channel.unary_unary(name + "Say", **same)
        self.collect = channel.stream_unary(name + "Collect", **same)
        self.repeat = channel.unary_stream(name + "Repeat", **same)
        self.chat = channel.stream_stream(name + "Chat", **same)


def connect(target, ca=None):
    if ca:
        credentials = grpc.ssl_channel_credentials(open(ca, "rb").read())
        options = OPTIONS + [("grpc.ssl_target_name_override", "lab.sluice.dev")]
        return grpc.secure_channel(target, credentials, options=options)
    return grpc.insecure_channel(target, options=OPTIONS)
