// Calls a server with @grpc/grpc-js from the .proto files: node client.mjs HOST:PORT. Prints one JSON object.
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";
import { fileURLToPath } from "node:url";
import path from "node:path";

const protos = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../../protos");
const definition = protoLoader.loadSync(["ift_serve/v1/inference.proto", "ift_serve/v1/model.proto"], {
  includeDirs: [protos],
  keepCase: true,
  enums: String,
  longs: String,
  defaults: true,
  oneofs: true,
});
const v1 = grpc.loadPackageDefinition(definition).ift_serve.v1;
const target = process.argv[2];
const credentials = grpc.credentials.createInsecure();
const inference = new v1.InferenceService(target, credentials);
const models = new v1.ModelService(target, credentials);

const unary = (client, method, request) =>
  new Promise((resolve, reject) => client[method](request, (error, reply) => (error ? reject(error) : resolve(reply))));
const prompt = { instruction: { instruction: "Say hello", context: "to them" } };
const sampling = { temperature: 0, max_new_tokens: 12, ignore_eos: true };

const model = await unary(models, "GetModel", {});
const whole = await unary(inference, "Generate", { prompt, sampling });
const pieces = [];
let usage = null;
await new Promise((resolve, reject) => {
  const stream = inference.StreamGenerate({ prompt, sampling });
  stream.on("data", (message) => {
    for (const delta of message.deltas) pieces.push(delta.text);
    usage = message.usage ?? usage;
  });
  stream.on("error", reject);
  stream.on("end", resolve);
});
let refused = null;
try {
  await unary(inference, "Generate", { prompt, sampling: { temperature: -1 } });
} catch (error) {
  refused = { code: error.code, details: error.details, request_id: error.metadata.get("x-request-id")[0] };
}
console.log(JSON.stringify({ model: model.name, text: whole.candidates[0].text, finish: whole.candidates[0].finish_reason, pieces, usage, refused }));
inference.close();
models.close();
