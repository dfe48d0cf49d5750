"""Completions of an endpoint, asked for over threads and yielded as they arrive."""

import threading
from collections.abc import Collection, Iterator, Mapping
from queue import Empty, SimpleQueue
from typing import Any

from datasets_builders.chat.faults import Faults
from datasets_builders.chat.wire import Nonsense, read_answer, wire_messages
from datasets_builders.completion_cache import Record
from trimpi.errors import UserError
from trimpi.prompt import Message

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0
"""Seconds between tries after an answer that is nonsense; doubled from try to try, as the SDK's."""


class Endpoint:
    """A model behind an endpoint; `datasets_builders.endpoint.connect` makes one."""

    def __init__(
        self,
        client: Any,
        settings: Mapping[str, Any],
        faults: Faults,
        tries: int,
        concurrency: int,
    ) -> None:
        self.settings = settings
        self._client, self._faults = client, faults
        self._tries, self._concurrency = tries, concurrency

    def __repr__(self) -> str:
        return f"Endpoint({self.settings['model']!r} at {self._faults.host})"

    def identity(self) -> Mapping[str, Any]:
        """Model and request fields; the same model elsewhere counts as the same."""
        return {name: self.settings[name] for name in ("model", "extra")}

    def stream(
        self,
        prompts: list[list[Message]],
        missing: Collection[int],
        *,
        max_new_tokens: int,
        temperature: float,
        seed: int,
    ) -> Iterator[tuple[int, Record]]:
        """Ask for the `missing` prompts and yield completions as they arrive.

        After a failure no further request is sent, but those on their way are waited for and
        yielded, because they are paid for. Ctrl-C does not wait.

        Raises:
            UserError: the first failure, one line.
        """
        limit = self.settings["token_field"]
        body = {limit: max_new_tokens, "temperature": temperature, "seed": seed}
        body.update(self.settings["extra"])
        body = {name: value for name, value in body.items() if value is not None}
        waiting, done = SimpleQueue[int](), SimpleQueue[tuple[int, Record | BaseException] | None]()
        stop = threading.Event()
        for place in sorted(missing):
            waiting.put(place)

        def work() -> None:
            while not stop.is_set():
                try:
                    place = waiting.get_nowait()
                except Empty:
                    break
                try:
                    done.put((place, self._ask(place, prompts[place], body, stop)))
                except BaseException as error:
                    stop.set()
                    done.put((place, error))
            done.put(None)

        # Daemons: Ctrl-C must not wait for requests that are on their way.
        workers = [
            threading.Thread(target=work, daemon=True)
            for _ in range(min(self._concurrency, len(missing)))
        ]
        failure: BaseException | None = None
        try:
            for worker in workers:
                worker.start()
            working = len(workers)
            while working:
                item = done.get()
                if item is None:
                    working -= 1
                elif isinstance(item[1], BaseException):
                    failure = failure or item[1]
                else:
                    yield item[0], item[1]
        finally:
            stop.set()
        if failure is not None:
            raise failure

    def _ask(
        self, place: int, messages: list[Message], body: dict[str, Any], stop: threading.Event
    ) -> Record:
        from openai import OpenAIError

        asked = wire_messages(messages)
        create = self._client.chat.completions.with_raw_response.create
        for attempt in range(self._tries):
            try:
                raw = create(model=self.settings["model"], messages=asked, extra_body=body)
                return read_answer(raw.http_response.text)
            except Nonsense as error:
                fault = str(error)
            except OpenAIError as error:
                raise UserError(self._faults.failure(error, place + 1)) from None
            pause = min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE)
            if attempt + 1 == self._tries or stop.wait(pause):
                break
        raise UserError(self._faults.nonsense(fault))
