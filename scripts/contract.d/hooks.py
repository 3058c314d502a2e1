"""What schemathesis does not know by itself: how lines of JSON, tables and archives are sent."""

import schemathesis


@schemathesis.serializer("application/x-ndjson")
@schemathesis.serializer("application/zip")
@schemathesis.serializer("text/csv")
def as_it_is(ctx, value):
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")
