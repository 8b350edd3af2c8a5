"""What a user can mend: shown as one line, without a traceback."""

from pipeline.config_file import ConfigError
from pipeline.demo import DemoError
from pipeline.demo_media import DemoMediaError
from pipeline.engine.errors import EngineError
from pipeline.evaluate.figures import EvaluationError
from pipeline.home import LostOutputError
from pipeline.ingest.entry import ListingError
from pipeline.onnx_model import WeightsError
from pipeline.review.errors import ReviewError
from pipeline.review.judgement import JudgementError
from pipeline.run_record import RunRecordError
from pipeline.storage import StorageError
from pipeline.tier.explain import UnknownClipError

KNOWN_ERRORS: tuple[type[Exception], ...] = (
    ConfigError,
    DemoError,
    DemoMediaError,
    EngineError,
    EvaluationError,
    JudgementError,
    ListingError,
    LostOutputError,
    ReviewError,
    RunRecordError,
    StorageError,
    UnknownClipError,
    WeightsError,
)
