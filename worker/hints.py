"""What a person can do about common errors of Nextflow."""

import re

_HINTS = [
    (
        r"\b401\b.*Unauthorized|Unauthorized.*\b401\b",
        "The cluster refused Nextflow's token, which older releases read once although it is changed every hour: "
        "resume the run, and use Nextflow 25.10 or newer for long ones.",
    ),
    (
        r"image cannot be pulled|ImagePullBackOff|ErrImagePull",
        "Check the image's name and tag, that its registry can be reached, and its pull secret.",
    ),
    (
        r"forbidden: User|cannot create resource",
        "The service account NEXTFLOW_SERVICE_ACCOUNT lacks rights in the namespace of the runs.",
    ),
    (
        r"must be a path mounted as a PV|\.command\.run: No such file",
        "The work directory must lie on the claim that WORK_PVC names, below WORK_MOUNT_PATH.",
    ),
    (
        r"exit status \(137\)|OutOfMemoryError|SIGKILL",
        "The task was killed, most often for lack of memory: give it more.",
    ),
    (
        r"exit status \(127\)|command not found",
        "A program is missing where the task runs: name a container, or install it.",
    ),
    (r"exit status \(143\)|SIGTERM", "The task was told to stop from outside, by a time limit or a person."),
    (
        r"Missing container image",
        "Give the process a container, for example by `process.container` in the config.",
    ),
    (
        r"Cannot find script file|Not a valid project name",
        "Check the pipeline's name: a directory in PIPELINES_DIR, an absolute path (on Kubernetes: on the work claim), "
        "owner/repository, or a Git URL.",
    ),
    (
        r"No such file or directory",
        "A relative path is looked up where the run is launched, in a directory of its own, not where you are: "
        "give an absolute one (on Kubernetes: on the work claim), or a URL.",
    ),
    (
        r"Make sure exists a \w+ repository|Cannot read project manifest|Unknown project|UnknownHostException|"
        r"Cannot find .* at (github|gitlab|bitbucket)|Remote resource not found",
        "The pipeline could not be fetched: check its name, its revision, access rights and the way to the internet.",
    ),
    (
        r"Cannot find revision|No such revision|Unknown revision",
        "Check the revision: a branch, a tag or a commit of the repository.",
    ),
    (
        r"Revision option cannot be used when running a local",
        "A pipeline on this machine has no revisions: leave it out, or name a Git repository.",
    ),
    (
        r"Missing project main script",
        "The directory has no main.nf: name the script itself, or another directory.",
    ),
    (
        r"Unable to find a Git provider config",
        "Nextflow does not know that Git server: check the address, or give it a provider (scm) in its configuration.",
    ),
    (
        r"Unknown config(uration)? profile",
        "Check the profile: it must be defined in the configuration of the pipeline.",
    ),
    (
        r"Script compilation error|Unexpected input|Missing process or function",
        "The script has an error at the place it names.",
    ),
    (r"Can't find a run with the specified id", "There is nothing to resume: start the pipeline anew."),
    (
        r"Unable to acquire lock on session",
        "Another Nextflow works in the same session: wait for its end, or cancel it.",
    ),
    (
        r"Cause: [\w.-]+\.\w+$|Unable to (resolve|connect)|Connection (refused|timed out)",
        "The worker's machine could not reach that host: check its way to the internet, or use a local path.",
    ),
    (r"No space left on device", "A disk is full: free some space, then resume."),
    (
        r"Access to undefined parameter|Missing .*parameter|No value specified for",
        "Give the parameter a value.",
    ),
]
_LONGEST = 8_000
_COMPILED = [(re.compile(pattern, re.IGNORECASE), hint) for pattern, hint in _HINTS]


def hint_for(text: str) -> str | None:
    """A sentence that helps with this error, if one is known."""
    return next((hint for pattern, hint in _COMPILED if pattern.search(text[:_LONGEST])), None)
