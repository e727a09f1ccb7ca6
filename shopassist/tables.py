"""Register every table: import this module where the whole schema is needed, as migrations do."""

from shopassist.audit import models as audit_models
from shopassist.cache import models as cache_models
from shopassist.catalog import models as catalog_models
from shopassist.consent import models as consent_models
from shopassist.credits import models as credit_models
from shopassist.maintenance import models as maintenance_models
from shopassist.privacy import models as privacy_models

__all__ = [
    "audit_models",
    "cache_models",
    "catalog_models",
    "consent_models",
    "credit_models",
    "maintenance_models",
    "privacy_models",
]
