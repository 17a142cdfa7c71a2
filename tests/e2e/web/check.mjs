// check.mjs ORIGIN: calls of the demo service by clients for browsers that nobody here wrote: grpc-web (text and
// binary), Connect's gRPC-Web over fetch and over HTTP/1.1 and HTTP/2 of Node, and Connect's gRPC. Exits 0 when all
// came out right, else prints which did not.
import { createRequire } from "node:module";
import { create, createFileRegistry } from "@bufbuild/protobuf";
import {
  FieldDescriptorProto_Label as Label,
  FieldDescriptorProto_Type as Type,
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
} from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import * as node from "@connectrpc/connect-node";
import * as web from "@connectrpc/connect-web";

const require = createRequire(import.meta.url);
const origin = process.argv[2];
let wrong = 0;
let count = 0;

function equal(got, wanted, what) {
  if (got !== wanted) throw new Error(`${what}: ${got}, not ${wanted}`);
}

async function check(name, run) {
  count += 1;
  const late = new Promise((_, reject) => setTimeout(() => reject(new Error("hangs")), 15000).unref());
  try {
    await Promise.race([run(), late]);
  } catch (error) {
    wrong += 1;
    console.log(`${name}: ${error.stack ?? error}`);
  }
}

// === The service, described by hand: no generated code ===

const field = (number, name, type) => ({ name, number, type, label: Label.OPTIONAL, jsonName: name });
const method = (name, clientStreaming, serverStreaming) => ({
  name,
  inputType: ".sluice.demo.v1.EchoRequest",
  outputType: ".sluice.demo.v1.EchoReply",
  clientStreaming,
  serverStreaming,
});
const file = create(FileDescriptorProtoSchema, {
  name: "echo.proto",
  package: "sluice.demo.v1",
  syntax: "proto3",
  messageType: [
    {
      name: "EchoRequest",
      field: [
        field(1, "payload", Type.BYTES),
        field(2, "count", Type.UINT32),
        field(3, "delay_ms", Type.UINT32),
        field(4, "fail_with", Type.UINT32),
      ],
    },
    {
      name: "EchoReply",
      field: [field(1, "payload", Type.BYTES), field(2, "endpoint", Type.STRING), field(3, "count", Type.UINT64)],
    },
  ],
  service: [
    {
      name: "Echo",
      method: [
        method("Say", false, false),
        method("Collect", true, false),
        method("Repeat", false, true),
        method("Chat", true, true),
        method("Nothing", false, false),
      ],
    },
    { name: "Nobody", method: [method("Say", false, false)] },
  ],
});
const registry = createFileRegistry(create(FileDescriptorSetSchema, { file: [file] }));
const Echo = registry.getService("sluice.demo.v1.Echo");
const Nobody = registry.getService("sluice.demo.v1.Nobody");
const bytes = (text) => new TextEncoder().encode(text);
const text = (data) => new TextDecoder().decode(data);

async function fails(call, code, message) {
  try {
    await call;
  } catch (error) {
    const told = ConnectError.from(error);
    equal(Code[told.code], Code[code], "code");
    if (message) equal(told.rawMessage, message, "message");
    return;
  }
  throw new Error("no error");
}

// === Connect ===

const transports = {
  "connect-web gRPC-Web by fetch": web.createGrpcWebTransport({ baseUrl: origin }),
  "connect-node gRPC-Web over HTTP/1.1": node.createGrpcWebTransport({ baseUrl: origin, httpVersion: "1.1" }),
  "connect-node gRPC-Web over HTTP/2": node.createGrpcWebTransport({ baseUrl: origin, httpVersion: "2" }),
  "connect-node gRPC": node.createGrpcTransport({ baseUrl: origin, httpVersion: "2" }),
};

for (const [name, transport] of Object.entries(transports)) {
  const echo = createClient(Echo, transport);
  await check(`${name}: unary`, async () => {
    let endpoint;
    const onHeader = (headers) => (endpoint = headers.get("x-endpoint"));
    const reply = await echo.say({ payload: bytes("hello") }, { onHeader });
    equal(text(reply.payload), "hello", "payload");
    equal(reply.endpoint, endpoint, "x-endpoint");
  });
  await check(`${name}: a large message`, async () => {
    const payload = new Uint8Array(3_000_000).map((_, at) => at);
    const reply = await echo.say({ payload });
    equal(Buffer.compare(reply.payload, payload), 0, "3 MB");
  });
  await check(`${name}: server streaming`, async () => {
    let next = 0n;
    for await (const reply of echo.repeat({ payload: bytes("x".repeat(1000)), count: 300 })) {
      equal(reply.count, next, "order");
      next += 1n;
    }
    equal(next, 300n, "replies");
  });
  await check(`${name}: a stream's messages do not wait for its end`, async () => {
    const began = Date.now();
    for await (const _ of echo.repeat({ payload: bytes("x"), count: 3, delayMs: 400 })) {
      if (Date.now() - began > 900) throw new Error("the first came too late");
      break;
    }
  });
  await check(`${name}: an error with its message`, () =>
    fails(echo.say({ failWith: 5 }), Code.NotFound, "as demanded"));
  await check(`${name}: an error inside a stream`, () =>
    fails(
      (async () => {
        for await (const _ of echo.repeat({ count: 2, failWith: 9 }));
      })(),
      Code.FailedPrecondition,
      "as demanded",
    ));
  await check(`${name}: a method that is not there`, () => fails(echo.nothing({}), Code.Unimplemented));
  await check(`${name}: a service without a route`, () =>
    fails(createClient(Nobody, transport).say({}), Code.Unimplemented));
  await check(`${name}: a deadline`, () =>
    fails(echo.say({ delayMs: 5000 }, { timeoutMs: 300 }), Code.DeadlineExceeded));
  if (name.includes("node")) {
    await check(`${name}: client streaming`, async () => {
      const reply = await echo.collect(
        (async function* () {
          for (let i = 0; i < 100; i += 1) yield { payload: bytes("y".repeat(1000)) };
        })(),
      );
      equal(reply.count, 100_000n, "bytes");
    });
    await check(`${name}: bidirectional`, async () => {
      const replies = [];
      const questions = (async function* () {
        for (let i = 0; i < 20; i += 1) yield { payload: bytes(`${i}`) };
      })();
      for await (const reply of echo.chat(questions)) replies.push(text(reply.payload));
      equal(replies.length, 20, "replies");
    });
  }
}

// === grpc-web ===

global.XMLHttpRequest = require("xhr2");
const grpcweb = require("grpc-web");
const { toBinary, fromBinary } = await import("@bufbuild/protobuf");
const Request = registry.getMessage("sluice.demo.v1.EchoRequest");
const Reply = registry.getMessage("sluice.demo.v1.EchoReply");

function descriptor(path, type) {
  return new grpcweb.MethodDescriptor(
    path,
    type,
    Object,
    Object,
    (request) => toBinary(Request, create(Request, request)),
    (data) => fromBinary(Reply, data),
  );
}
const { UNARY, SERVER_STREAMING } = grpcweb.MethodType;

for (const format of ["text", "binary"]) {
  const client = new grpcweb.GrpcWebClientBase({ format });
  const unary = (path, request, metadata = {}) =>
    new Promise((resolve, reject) => {
      const done = (error, reply) => (error ? reject(error) : resolve(reply));
      client.rpcCall(origin + path, request, metadata, descriptor(path, UNARY), done);
    });
  const say = (request, metadata) => unary("/sluice.demo.v1.Echo/Say", request, metadata);
  const refused = async (call, code, message) => {
    try {
      await call;
    } catch (error) {
      equal(error.code, code, "code");
      if (message) equal(error.message, message, "message");
      return;
    }
    throw new Error("no error");
  };
  await check(`grpc-web ${format}: unary`, async () => {
    equal(text((await say({ payload: bytes("hello") })).payload), "hello", "payload");
  });
  await check(`grpc-web ${format}: payloads of every length`, async () => {
    for (let len = 0; len < 40; len += 1) {
      const payload = new Uint8Array(len).map((_, at) => 255 - at);
      equal(Buffer.compare((await say({ payload })).payload, payload), 0, `${len} bytes`);
    }
  });
  await check(`grpc-web ${format}: an error with its message`, () =>
    refused(say({ failWith: 8 }), 8, "as demanded"));
  await check(`grpc-web ${format}: a method that is not there`, () =>
    refused(unary("/sluice.demo.v1.Echo/Nothing", {}), 12));
  await check(`grpc-web ${format}: a service without a route`, () =>
    refused(unary("/sluice.demo.v1.Nobody/Say", {}), 12));
  await check(`grpc-web ${format}: a deadline`, () =>
    refused(say({ delayMs: 5000 }, { deadline: `${Date.now() + 300}` }), 4));
  if (format === "text") {
    await check(`grpc-web ${format}: server streaming`, () =>
      new Promise((resolve, reject) => {
        const path = "/sluice.demo.v1.Echo/Repeat";
        const request = { payload: bytes("x"), count: 100 };
        const stream = client.serverStreaming(origin + path, request, {}, descriptor(path, SERVER_STREAMING));
        let replies = 0;
        stream.on("data", () => (replies += 1));
        stream.on("error", reject);
        stream.on("end", () => (replies === 100 ? resolve() : reject(new Error(`${replies} replies`))));
      }));
  }
}

console.log(`${count - wrong} of ${count} calls as they should`);
process.exit(wrong ? 1 : 0);
