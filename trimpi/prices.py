"""Prices that a break-even is reckoned with, in a recipe (`report.prices`) or from a command."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from trimpi.recipe_fields import NonNegative, PositiveFloat, PositiveInt, Section


class PriceConfig(Section):
    """What the break-even of the report reckons with; what is not given is not reckoned."""

    price: NonNegative | None = None
    """US dollars for a million input tokens."""
    cached_price: NonNegative | None = None
    """The same for tokens that the provider has cached."""
    tuned_price: NonNegative | None = None
    """The same for the trained model; None is `price`."""
    gpu_hour: PositiveFloat | None = None
    """US dollars for an hour of one device."""
    training_cost: NonNegative | None = None
    """US dollars; None reckons it from the time of the stages and `gpu_hour`."""
    requests_per_day: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (
        1_000,
        10_000,
        100_000,
    )

    @model_validator(mode="after")
    def _of_something(self) -> Self:
        alone = [
            name for name in ("cached_price", "tuned_price") if getattr(self, name) is not None
        ]
        if self.price is None and alone:
            raise ValueError(f"{alone[0]} is compared with 'price', which is missing; give it too")
        return self
