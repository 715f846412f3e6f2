"""What `openlepton serve` runs: catalog, workers, addresses and server, put together."""

import os
import sys
import threading
from collections.abc import Sequence
from functools import partial

from fastapi import APIRouter

from openlepton.runtimes.cores import usable_cores
from openlepton.serve import job_addresses, open_inference, pace, predictions
from openlepton.serve.answers import Site
from openlepton.serve.app import Step, create_app
from openlepton.serve.bodies import Held
from openlepton.serve.catalog import ModelSetup, catalog
from openlepton.serve.jobs import Jobs
from openlepton.serve.launch import Anew, Copies, Launch
from openlepton.serve.metrics import Metrics
from openlepton.serve.run import Tell, serve
from openlepton.serve.scheduler import Scheduler
from openlepton.serve.settings import Settings
from openlepton.serve.tasks import TEXT


def site_of(launch: Launch, settings: Settings) -> Site:
    """Return what the addresses of a server share, its workers not yet started."""
    scheduler = Scheduler(launch, settings)
    held = Held(settings.limits.held_bytes)
    return Site(settings, scheduler, held, Metrics(scheduler, held))


def serve_models(names: Sequence[str], settings: Settings, tell: Tell) -> int:
    """Serve models until a signal comes; return 0 if everything that was accepted was finished.

    Args:
        names: As `load` takes them; none for one of every task.
        settings: Where, for whom, and how much.
        tell: Takes what a person should know, line by line.

    Raises:
        OpenLeptonError: Something keeps the server from starting.
    """
    models = catalog(names)
    launch = _launch(ModelSetup(models.names, settings.limits, settings.jobs), settings.workers)
    site = site_of(launch, settings)
    texts = [card.name for card in models.cards.values() if card.task in TEXT]
    images = [name for name in models.cards if name not in texts]
    start = partial(pace.settle, site.scheduler, settings.workers, tell, measure=(images + texts)[0], texts=texts)
    tell(f"models: {', '.join(models.cards)}")
    routers, jobs = [predictions.router(site, models), open_inference.router(site, models)], None
    if settings.jobs is not None:
        jobs = Jobs(site, settings.jobs)
        routers.append(job_addresses.router(site, models, jobs))

    async def stop() -> None:
        if jobs is not None:
            await jobs.stop()
        await site.scheduler.stop()
        launch.close()

    return run(site, routers, "OpenLepton", start, stop, tell)


def run(site: Site, routers: Sequence[APIRouter], title: str, start: Step, stop: Step, tell: Tell) -> int:
    """Serve these addresses until a signal comes."""
    app = create_app(site, routers, title=title, start=start, stop=stop)
    return serve(app, site.settings, site.scheduler.drain, tell)


def _launch(setup: ModelSetup, workers: int | None) -> Launch:
    """Return how workers are started: as copies where that is known to be safe."""
    if sys.platform != "linux" or threading.active_count() > 1:
        return Anew(setup)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads would not be copied
    from openlepton.offline import import_onnxruntime
    from openlepton.serve.models import ready  # and all that the workers will need

    import_onnxruntime()
    one_thread = workers is None or usable_cores() < 2 * workers  # each, as `pace` will say; others have to load anew
    return Copies(setup, partial(ready, setup) if one_thread else None)
