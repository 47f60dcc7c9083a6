"""boto3 through the proxy with a client token alone, against moto, which checks every signature."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import botocore.config
import botocore.exceptions
import pytest

from apitokenproxy import Proxy, Rule, Upstream
from apitokenproxy.credentials.sigv4 import SigV4
from apitokenproxy.testing import FixedSecrets
from loopback import running_asgi, running_wsgi

REGION = "us-east-1"
POLICY = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
PART = b"0123456789abcdef" * (5 * 1024 * 1024 // 16)
CONFIG = botocore.config.Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})


def client(service: str, url: str, key: str, secret: str) -> Any:
    return boto3.client(
        service,
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=CONFIG,
    )


class Aws:
    """A running moto that lets nobody do anything whose signature is wrong, and one pair of keys that are right."""

    def __init__(self, url: str) -> None:
        self.url = url
        iam = client("iam", url, "anybody", "anything")  # the first three calls need no keys
        iam.create_user(UserName="proxy")
        made = iam.create_access_key(UserName="proxy")["AccessKey"]
        iam.put_user_policy(UserName="proxy", PolicyName="all", PolicyDocument=json.dumps(POLICY))
        self.key, self.secret = made["AccessKeyId"], made["SecretAccessKey"]


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    command = [sys.executable, "-u", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    environment = {**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": "3"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            found = None
            while found is None:
                line = process.stderr.readline()
                assert line, "moto ended"
                found = re.search(r"http://127\.0\.0\.1:\d+", line)
            yield Aws(found[0])
        finally:
            process.terminate()
            process.stderr.read()


@pytest.fixture(params=[running_asgi, running_wsgi], ids=["asgi", "wsgi"])
def through(request: pytest.FixtureRequest, aws: Aws) -> Iterator[Callable[[str], Any]]:
    """Return a function that makes a client of a service which calls through the proxy with a client token."""

    def upstream(service: str) -> Upstream:
        credential = SigV4(
            service, REGION, access_key="fixed:key", secret="fixed:secret", allow_headers=["x-amz-copy-source"]
        )
        return Upstream(
            service,
            aws.url,
            credential=credential,
            allow_private=True,
            allow_empty_segments=True,
            allow_encoded_slash=True,
        )

    proxy = Proxy(
        upstreams=[upstream("s3"), upstream("sqs"), upstream("dynamodb")],
        rules=[Rule("all", effect="allow")],
        secret_providers={"fixed": FixedSecrets(key=aws.key, secret=aws.secret)},
    )
    token = proxy.tokens.issue(tenant="acme").token
    app = proxy.asgi if request.param is running_asgi else proxy.wsgi
    with request.param(app) as url:
        yield lambda service: client(service, f"{url}/{service}", token, "placeholder")
    proxy.close()


def test_moto_checks_signatures(aws: Aws) -> None:
    """Or the tests below would show nothing."""
    with pytest.raises(botocore.exceptions.ClientError, match="SignatureDoesNotMatch"):
        client("s3", aws.url, aws.key, "wrong").list_buckets()


def test_s3(through: Callable[[str], Any]) -> None:
    """Buckets, objects with odd names, listing, and an upload in parts."""
    s3 = through("s3")
    s3.create_bucket(Bucket="things")
    names = ["plain", "dir/a b+c", "ü/ß~", "a=b&c", "deep//twice"]
    for name in names:
        s3.put_object(Bucket="things", Key=name, Body=name.encode() * 100, ContentType="text/plain")
    for name in names:
        assert s3.get_object(Bucket="things", Key=name)["Body"].read() == name.encode() * 100
    listed = s3.list_objects_v2(Bucket="things", MaxKeys=100, Prefix="")["Contents"]
    assert sorted(one["Key"] for one in listed) == sorted(names)
    upload = s3.create_multipart_upload(Bucket="things", Key="large")["UploadId"]
    place = {"Bucket": "things", "Key": "large", "UploadId": upload}
    tags = [s3.upload_part(**place, PartNumber=number, Body=PART)["ETag"] for number in (1, 2)]
    parts = [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, 1)]
    s3.complete_multipart_upload(**place, MultipartUpload={"Parts": parts})
    assert s3.get_object(Bucket="things", Key="large")["Body"].read() == PART * 2
    s3.copy_object(Bucket="things", Key="copy", CopySource={"Bucket": "things", "Key": "dir/a b+c"})
    s3.delete_objects(Bucket="things", Delete={"Objects": [{"Key": name} for name in (*names, "large", "copy")]})
    assert "Contents" not in s3.list_objects_v2(Bucket="things")
    s3.delete_bucket(Bucket="things")


def test_other_services(through: Callable[[str], Any]) -> None:
    """Those whose bodies must be hashed here: a query API in JSON, and a database."""
    sqs = through("sqs")
    queue = sqs.create_queue(QueueName="jobs")["QueueUrl"]
    sqs.send_message(QueueUrl=queue, MessageBody="hello & more")
    assert [one["Body"] for one in sqs.receive_message(QueueUrl=queue)["Messages"]] == ["hello & more"]
    sqs.delete_queue(QueueUrl=queue)
    tables = through("dynamodb")
    tables.create_table(
        TableName="t",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    tables.put_item(TableName="t", Item={"id": {"S": "ü"}})
    assert tables.get_item(TableName="t", Key={"id": {"S": "ü"}})["Item"] == {"id": {"S": "ü"}}
    tables.delete_table(TableName="t")
