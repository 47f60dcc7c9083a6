// fastify with @fastify/http-proxy (undici), a token check and an injected key.
import fastify from "fastify";
import httpProxy from "@fastify/http-proxy";

const app = fastify();
app.register(httpProxy, {
  upstream: process.env.UPSTREAM,
  preHandler: (request, reply, done) => {
    if (request.headers.authorization !== "Bearer client-token") {
      reply.code(401).send();
      return;
    }
    done();
  },
  replyOptions: { rewriteRequestHeaders: (_, headers) => ({ ...headers, authorization: "Bearer real-key" }) },
});
app.listen({ port: Number(process.env.PORT), host: "127.0.0.1" });
