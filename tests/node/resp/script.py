"""redis-py against the node at the first port, of a cluster at all of them; 77 if redis-py 5 or newer is not installed."""

import sys
import time

try:
    import redis
    from redis.cluster import RedisCluster
except ImportError:
    sys.exit(77)
if int(redis.__version__.split(".")[0]) < 5:
    sys.exit(77)

port = int(sys.argv[1])
ports = {int(argument) for argument in sys.argv[1:]}


def run(protocol):
    r = redis.Redis(port=port, protocol=protocol, decode_responses=True, client_name="test")
    assert r.ping() and r.client_getname() == "test"
    assert r.flushdb()
    assert r.set("a", "1", ex=100) and r.set("a", "2", nx=True) is None
    assert r.get("a") == "1" and r.incr("a") == 2 and 90 < r.ttl("a") <= 100
    assert r.set("a", "3", get=True, keepttl=True) == "2" and r.persist("a")
    assert r.mset({"b": "1", "c": "2"}) and r.mget("a", "b", "x") == ["3", "1", None]
    assert r.incrbyfloat("f", 1.5) == 1.5 and r.append("a", "xy") == 3 and r.getrange("a", 1, -1) == "xy"
    assert r.getdel("b") == "1" and r.exists("a", "b", "c") == 2 and r.type("a") == "string"
    with r.pipeline(transaction=False) as pipeline:
        for n in range(100):
            pipeline.set(f"key:{n}", n).get(f"key:{n}")
        replies = pipeline.execute()
    assert replies[1::2] == [str(n) for n in range(100)]
    assert set(r.scan_iter("key:*", count=7)) == {f"key:{n}" for n in range(100)}
    assert r.dbsize() == 103 and len(r.keys("key:9?")) == 10
    assert r.wait(0, 10) >= 0 and r.info("server")["server_name"] == "ringbolt"
    assert r.config_get("appendonly") == {"appendonly": "yes"} and r.command_count() > 40
    assert r.client_info()["name"] == "test"
    try:
        r.auth("secret")
        raise AssertionError("AUTH was taken")
    except (redis.AuthenticationError, redis.ResponseError):
        pass

    c = RedisCluster(host="127.0.0.1", port=port, protocol=protocol, decode_responses=True)
    assert {node.port for node in c.get_primaries()} <= ports, c.get_primaries()
    for n in range(200):
        assert c.set(f"cluster:{n}", n) and c.get(f"cluster:{n}") == str(n)
    assert c.mget_nonatomic([f"cluster:{n}" for n in range(200)]) == [str(n) for n in range(200)]
    assert {key for key in c.scan_iter("cluster:*")} == {f"cluster:{n}" for n in range(200)}
    assert c.delete(*[f"cluster:{n}" for n in range(200)]) == 200
    c.close()


deadline = time.monotonic() + 60
for protocol in (2, 3):
    while True:
        try:
            run(protocol)
            break
        except (redis.exceptions.ClusterDownError, redis.exceptions.RedisClusterException):
            # A partition changes its leader.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)

print("done")
