#!/usr/bin/env python3
"""Creates a Deployment over skiff's gRPC API, watches its pods become Running, reads a log.

Stubs: python3 -m grpc_tools.protoc -I proto/protos --python_out=. --grpc_python_out=. skiff/api/v1/api.proto
Usage: deploy.py HOST:PORT CA.crt CLIENT.crt CLIENT.key IMAGE
"""
import json
import sys

import grpc
from skiff.api.v1 import api_pb2 as pb
from skiff.api.v1 import api_pb2_grpc

address, ca, cert, key, image = sys.argv[1:]
read = lambda path: open(path, "rb").read()
credentials = grpc.ssl_channel_credentials(read(ca), read(key), read(cert))
api = api_pb2_grpc.ApiStub(grpc.secure_channel(address, credentials))

labels = {"app": "from-python"}
deployment = {
    "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "from-python"},
    "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": {
        "metadata": {"labels": labels},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "web", "image": image}]}}}}
apps = pb.Resource(group="apps", version="v1", resource="deployments")
api.Create(pb.CreateRequest(resource=apps, namespace="default", json=json.dumps(deployment).encode()))

pods = pb.Resource(version="v1", resource="pods")
running = set()
for event in api.Watch(pb.WatchRequest(resource=pods, namespace="default", label_selector="app=from-python"), timeout=60):
    pod = json.loads(event.object.json)
    print(pb.WatchEvent.Type.Name(event.type), event.object.name, pod["status"].get("phase"))
    if pod["status"].get("phase") == "Running":
        running.add(event.object.name)
    if len(running) == 2:
        break

# A container runs a moment before it says anything: follow its log to the first words.
options = pb.LogOptions(follow=True)
for chunk in api.Logs(pb.LogsRequest(namespace="default", pod=min(running), options=options), timeout=60):
    print(chunk.data.decode(), end="")
    break
