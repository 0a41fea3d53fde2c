"""Abstract bases of all components.

A component is a frozen dataclass. Its fields are the settings that a recipe can set, each declared
with :func:`genkit.settings.setting`. The value of a field whose type is one of these bases is
another component. Components contain only settings; the objects that they build contain the state.
"""

from __future__ import annotations

from genkit.interfaces.base import Component as Component
from genkit.interfaces.base import Context as Context
from genkit.interfaces.base import Design as Design
from genkit.interfaces.base import Inputs as Inputs
from genkit.interfaces.base import Network as Network
from genkit.interfaces.base import Stage as Stage
from genkit.interfaces.base import Stages as Stages
from genkit.interfaces.base import Trained as Trained
from genkit.interfaces.binding import BoundNetwork as BoundNetwork
from genkit.interfaces.binding import unbound as unbound
from genkit.interfaces.coupling import AnyCoupler as AnyCoupler
from genkit.interfaces.coupling import BoundCoupler as BoundCoupler
from genkit.interfaces.coupling import BoundDatasetCoupler as BoundDatasetCoupler
from genkit.interfaces.coupling import Coupler as Coupler
from genkit.interfaces.coupling import DatasetCoupler as DatasetCoupler
from genkit.interfaces.data import Augmentation as Augmentation
from genkit.interfaces.data import Dataset as Dataset
from genkit.interfaces.evaluation import BoundMetric as BoundMetric
from genkit.interfaces.evaluation import Extractor as Extractor
from genkit.interfaces.evaluation import Features as Features
from genkit.interfaces.evaluation import Metric as Metric
from genkit.interfaces.evaluation import Subject as Subject
from genkit.interfaces.functions import FunctionCallback as FunctionCallback
from genkit.interfaces.guidance import BoundGuidance as BoundGuidance
from genkit.interfaces.guidance import Guidance as Guidance
from genkit.interfaces.networks import Classifier as Classifier
from genkit.interfaces.networks import Denoiser as Denoiser
from genkit.interfaces.networks import Discriminator as Discriminator
from genkit.interfaces.networks import Imported as Imported
from genkit.interfaces.networks import Importer as Importer
from genkit.interfaces.networks import Preconditioned as Preconditioned
from genkit.interfaces.networks import Preconditioner as Preconditioner
from genkit.interfaces.sampling import Latents as Latents
from genkit.interfaces.sampling import Sampler as Sampler
from genkit.interfaces.sampling import SamplingStage as SamplingStage
from genkit.interfaces.sampling import Schedule as Schedule
from genkit.interfaces.sampling import Solver as Solver
from genkit.interfaces.tracking import BoundTracker as BoundTracker
from genkit.interfaces.tracking import TrackedRun as TrackedRun
from genkit.interfaces.tracking import Tracker as Tracker
from genkit.interfaces.training import Average as Average
from genkit.interfaces.training import BoundCallback as BoundCallback
from genkit.interfaces.training import BoundObjective as BoundObjective
from genkit.interfaces.training import Callback as Callback
from genkit.interfaces.training import NoiseDistribution as NoiseDistribution
from genkit.interfaces.training import Objective as Objective
from genkit.interfaces.training import Optimizer as Optimizer
from genkit.interfaces.training import RunningAverage as RunningAverage
from genkit.interfaces.training import TrainingFunction as TrainingFunction
from genkit.interfaces.training import TrainingState as TrainingState
