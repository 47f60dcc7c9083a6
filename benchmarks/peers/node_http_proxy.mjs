// node http-proxy with a token check and an injected key.
import http from "node:http";
import https from "node:https";
import httpProxy from "http-proxy";

const target = process.env.UPSTREAM;
const Agent = target.startsWith("https") ? https.Agent : http.Agent;
const proxy = httpProxy.createProxyServer({ target, changeOrigin: true, agent: new Agent({ keepAlive: true }) });
http.createServer((request, response) => {
  if (request.headers.authorization !== "Bearer client-token") {
    response.writeHead(401).end();
    return;
  }
  request.headers.authorization = "Bearer real-key";
  proxy.web(request, response, {}, () => response.writeHead(502).end());
}).listen(Number(process.env.PORT), "127.0.0.1");
