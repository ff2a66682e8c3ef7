"""`publish`: a finetune of one's own in a repository on the Hub."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reeltune._text import counted
from reeltune.cli.options import Id, Root, open_catalog
from reeltune.cli.output import interruptible, print_line, print_notice, print_table, progress_display, size

if TYPE_CHECKING:
    from reeltune.sharing.licenses import License
    from reeltune.sharing.plan import PublishPlan


def publish(
    id: Id,
    repo: Annotated[str, typer.Option("--repo", metavar="NAME/REPO", help="Repository of models on the Hub.")],
    public: Annotated[bool, typer.Option("--public", help="Make the repository public (default: private).")] = False,
    pr: Annotated[bool, typer.Option("--pr", help="Open a pull request, for a repository of somebody else.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan, and publish nothing.")] = False,
    versions: Annotated[
        str | None,
        typer.Option(
            "--versions",
            show_default=False,
            help="Versions to publish, such as bf16,int8-bf16,int8-fp16 (default: those listed). Missing int8 "
            "versions are made.",
        ),
    ] = None,
    license: Annotated[
        str | None,
        typer.Option(
            "--license", "--licence", show_default=False, help="License of the weights, such as apache-2.0; remembered."
        ),
    ] = None,
    license_name: Annotated[str, typer.Option("--license-name", help="Name of a license `other`.")] = "",
    license_link: Annotated[str, typer.Option("--license-link", help="URL of a license `other`.")] = "",
    examples: Annotated[
        int, typer.Option("--examples", min=0, max=20, help="Most videos from outputs/ to show on the card.")
    ] = 3,
    keep_metadata: Annotated[
        bool, typer.Option("--keep-metadata", help="Publish weights whose metadata contains paths of this machine.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace files of a repository that contains something else.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Publish without asking for confirmation.")] = False,
    root: Root = None,
) -> None:
    """Publish a finetune: its own files, a card, and its definition with URLs, in one commit on the Hub.

    The plan is shown first. After an interruption, the same command continues.

    The definition gets the URLs and sha256 once the Hub has everything.
    """
    from reeltune.sharing.licenses import chosen_license
    from reeltune.sharing.own_files import parse_versions
    from reeltune.sharing.plan import PublishOptions, plan_publication
    from reeltune.sharing.publishing import open_repository
    from reeltune.sharing.publishing import publish as publish_definition

    catalog = open_catalog(root)
    options = PublishOptions(
        public=public,
        pull_request=pr,
        versions=parse_versions(versions),
        license=chosen_license(license, license_name, license_link) if license else None,
        examples=examples,
        keep_metadata=keep_metadata,
        force=force,
    )
    hub = open_repository(catalog, repo)

    def confirm(plan: PublishPlan) -> PublishPlan:
        print_publish_plan(plan)
        plan = replace(plan, license=plan.license or _ask_license())
        if not yes:
            typer.confirm("Publish this?", abort=True, err=True)
        return plan

    with tempfile.TemporaryDirectory() as folder, interruptible() as cancel, progress_display() as listener:
        place = Path(folder)
        if dry_run:
            print_publish_plan(plan_publication(catalog, id, options, hub, place, listener=listener, cancel=cancel))
            return
        published = publish_definition(catalog, id, options, hub, place, confirm, listener=listener, cancel=cancel)
    if published.edited:
        print_notice(f"{id} lists the URLs and sha256 now.")
    print_line(f"Published: {published.page}")
    if not pr:
        print_line(f"Others install it with: reeltune add {published.url}")


def print_publish_plan(plan: PublishPlan) -> None:
    """Print every file with its size, its sha256 and what happens to it, and what else will happen."""
    rows = [
        (file.name, size(file.bytes) if file.bytes is not None else "to be made", file.state, file.sha256 or "-")
        for file in plan.files
    ]
    print_table(("FILE", "SIZE", "STATE", "SHA256"), rows)
    total = sum(file.bytes for file in plan.to_send) + sum(len(file.content) for file in plan.changed_texts)
    where = f"{plan.repository} ({_visibility(plan)})"
    print_line(f"\n{size(total)} to upload to {where}, in one commit.")
    if plan.missing:
        print_line(f"{counted(len(plan.missing), 'version')} to be made first.")
    print_line(f"License: {plan.license or 'not chosen yet (--license)'}")
    if plan.others:
        print_line("Files of others, which stay where they are:")
        for url in plan.others:
            print_line(f"  {url}")
    for example in plan.examples:
        print_line(f"Example video {example.file.name}: {example.prompt}")
    for notice in plan.notices:
        print_notice(notice)


def _visibility(plan: PublishPlan) -> str:
    if plan.options.pull_request:
        return "as a pull request"
    if plan.state is None:
        return "new, public" if plan.options.public else "new, private"
    is_private = plan.state.private and not plan.options.public
    return "private" if is_private else "public"


def _ask_license() -> License:
    """Ask for the license of a model. Raises PublishError if there is no answer."""
    from reeltune.errors import PublishError
    from reeltune.sharing.licenses import OTHER, SUGGESTED, chosen_license

    print_notice(f"A model is published under a license, for example {', '.join(SUGGESTED[:5])}.")
    print_notice("It must be allowed by the license of the model that yours is based on.")
    try:
        while True:
            answer = str(typer.prompt("License", err=True)).strip()
            if answer.lower() == OTHER:
                name = str(typer.prompt("Its name", err=True))
                return chosen_license(answer, name, str(typer.prompt("Its URL", err=True)))
            try:
                return chosen_license(answer)
            except PublishError as error:
                print_notice(str(error))
    except typer.Abort:
        hint = "Choose one: --license apache-2.0, for example."
        raise PublishError("A model is published under a license.", hint=hint) from None
