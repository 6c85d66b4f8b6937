"""The JobSets that jobset.sh applies: one process per host with its number and coordinator, restarted as a set."""

import pytest
import yaml

GPU = {"NAME": "sdit", "IMAGE": "registry/sdit_jax:1", "BUCKET": "my-bucket", "HOSTS": "4", "CHIPS": "8"}
TPU = GPU | {"CHIPS": "4", "SLICES": "2", "ACCELERATOR": "tpu-v6e-slice", "TOPOLOGY": "4x4"}
ARGUMENTS = ["--config=a b", '--config.data.name="x" \\ & y', "--workdir=/mnt/bucket/runs/x"]


@pytest.fixture(params=["gpu", "tpu"])
def jobset(checkout, request):
    """The manifest for kubectl: the kind, the set, its job and its pod."""
    checkout.fake("kubectl", "cat > $ROOT/applied")
    done = checkout.run("launch/jobset.sh", request.param, *ARGUMENTS, **(GPU if request.param == "gpu" else TPU))
    assert done.returncode == 0, done.stderr
    assert checkout.calls() == ["kubectl apply --filename=-"]
    text = (checkout.path / "applied").read_text()
    assert "${" not in text
    manifest = yaml.safe_load(text)
    job = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]
    return request.param, manifest, job, job["template"]["spec"]


def test_there_is_a_pod_for_every_host_and_each_knows_its_number(jobset):
    kind, manifest, job, pod = jobset
    (jobs,) = manifest["spec"]["replicatedJobs"]
    (container,) = pod["containers"]
    assert (job["completionMode"], job["parallelism"], job["completions"]) == ("Indexed", 4, 4)
    assert container["args"] == ARGUMENTS
    flags = dict(flag.split("=", 1) for flag in container["command"] if "=" in flag)
    if kind == "gpu":
        # JobSet's DNS name of the first pod: SET-REPLICATEDJOB-JOB-POD.SET
        coordinator = f"{manifest['metadata']['name']}-{jobs['name']}-0-0.{manifest['metadata']['name']}:8476"
        assert jobs["replicas"] == 1
        assert flags == {"--coordinator": coordinator, "--processes": "4", "--process": "$(JOB_COMPLETION_INDEX)"}
    else:
        assert jobs["replicas"] == 2
        assert flags == {"--processes": "8"}  # Checked against the number that JAX finds.


def test_pods_ask_for_the_chips_of_a_host(jobset):
    kind, manifest, _, pod = jobset
    limits = pod["containers"][0]["resources"]["limits"]
    if kind == "gpu":
        assert limits == {"nvidia.com/gpu": "8"}
    else:
        assert limits == {"google.com/tpu": "4"}
        assert pod["nodeSelector"] == {
            "cloud.google.com/gke-tpu-accelerator": "tpu-v6e-slice",
            "cloud.google.com/gke-tpu-topology": "4x4",
        }
        exclusive = manifest["metadata"]["annotations"]["alpha.jobset.sigs.k8s.io/exclusive-topology"]
        assert exclusive == "cloud.google.com/gke-nodepool"


def reason(job, code=None, condition=None):
    """Why Kubernetes fails the job when a pod ends so: by the first rule that matches, else by backoffLimit."""
    for rule in job["podFailurePolicy"]["rules"]:
        codes = rule.get("onExitCodes", {"operator": "In", "values": []})
        conditions = [each["type"] for each in rule.get("onPodConditions", [])]
        if (codes["operator"] == "In" and code in codes["values"]) or condition in conditions:
            if rule["action"] == "FailJob":
                return "PodFailurePolicy"
            assert rule["action"] == "Count"
            break
    assert job["backoffLimit"] == 0
    return "BackoffLimitExceeded"


@pytest.mark.parametrize(
    "end, action",
    [
        ({"code": 2}, "FailJobSet"),
        ({"code": 75}, "RestartJobSet"),
        ({"code": 1}, "RestartJobSet"),
        ({"code": 137}, "RestartJobSet"),
        ({"code": 75, "condition": "DisruptionTarget"}, "RestartJobSet"),
    ],
)
def test_a_mistake_fails_the_set_and_all_else_restarts_it(jobset, end, action):
    _, manifest, job, pod = jobset
    policy = manifest["spec"]["failurePolicy"]
    why = reason(job, **end)
    actions = [rule["action"] for rule in policy["rules"] if why in rule["onJobFailureReasons"]]
    assert (actions or ["RestartJobSet"])[0] == action
    assert policy["maxRestarts"] == 100
    assert pod["restartPolicy"] == "Never"  # Kubernetes allows a podFailurePolicy with no other.
    assert job["podFailurePolicy"]["rules"][0]["onExitCodes"]["containerName"] == pod["containers"][0]["name"]


def test_the_run_folder_is_in_the_bucket(jobset):
    _, _, job, pod = jobset
    assert job["template"]["metadata"]["annotations"] == {"gke-gcsfuse/volumes": "true"}
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert set(mounts) == set(volumes)
    assert mounts["bucket"] == "/mnt/bucket"
    bucket = volumes["bucket"]["csi"]
    assert (bucket["driver"], bucket["volumeAttributes"]["bucketName"]) == ("gcsfuse.csi.storage.gke.io", "my-bucket")
