from lavit_edge.adapt.run import adapt as adapt
from lavit_edge.benchmark.devices import BenchmarkConfig as BenchmarkConfig
from lavit_edge.benchmark.run import benchmark as benchmark
from lavit_edge.checkpoint import Checkpoint as Checkpoint
from lavit_edge.checkpoint import load_checkpoint as load_checkpoint
from lavit_edge.classifier import Classifier as Classifier
from lavit_edge.compare import compare as compare
from lavit_edge.contract import InputContract as InputContract
from lavit_edge.errors import UserError as UserError
from lavit_edge.evaluate import EvaluateConfig as EvaluateConfig
from lavit_edge.evaluate import evaluate as evaluate
from lavit_edge.export.bundle import export as export
from lavit_edge.export.config import ExportConfig as ExportConfig
from lavit_edge.models import create_model as create_model
from lavit_edge.models import list_models as list_models
from lavit_edge.parity.agreement import Gates as Gates
from lavit_edge.predict import PredictConfig as PredictConfig
from lavit_edge.predict import predict as predict
from lavit_edge.quantize.config import QuantizeConfig as QuantizeConfig
from lavit_edge.quantize.run import quantize as quantize
from lavit_edge.selftest import selftest as selftest
from lavit_edge.train.config import TrainConfig as TrainConfig
from lavit_edge.train.recipe import Recipe as Recipe
from lavit_edge.train.run import train as train
from lavit_edge.verify import VerifyConfig as VerifyConfig
from lavit_edge.verify import verify as verify

__version__: str
