"""What is not answered, in OpenAI's words."""

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}


class Refusal(Exception):
    """A request that gets no answer.

    Attributes:
        status: HTTP's.
        message: one sentence that says what is wrong and what to do.
        param: the field of the request that is wrong, or None.
        code: OpenAI's word for it, or None.
    """

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    def as_dict(self) -> dict[str, dict[str, str | None]]:
        """As the OpenAI API writes errors."""
        kind = _TYPES.get(self.status, "invalid_request_error")
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}
