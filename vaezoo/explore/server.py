"""The server of the live page, on this machine only."""

import webbrowser
from collections.abc import Callable

from bokeh.application import Application
from bokeh.application.handlers import FunctionHandler
from bokeh.document import Document
from bokeh.server.server import Server
from tornado.ioloop import IOLoop, PeriodicCallback

from vaezoo.errors import ConfigError

HOST = "127.0.0.1"
LARGEST_MESSAGE = 128 * 2**20  # bytes: of a file that a visitor drops


def start_server(add_page: Callable[[Document], None], port: int) -> tuple[Server, str]:
    """Start the server in the event loop of this thread, and return it with the address of the page.

    Args:
        add_page: adds the page to the document of a visitor.
        port: its port; 0: a free one.

    Raises:
        ConfigError: the port is in use.
    """
    application = Application(FunctionHandler(add_page))
    names = ["127.0.0.1", "localhost"]
    try:
        server = Server(
            {"/": application},
            io_loop=IOLoop.current(),
            address=HOST,
            port=port,
            allow_websocket_origin=[f"{name}:{port}" for name in names] if port else None,
            websocket_max_message_size=LARGEST_MESSAGE,
            use_index=False,
        )
    except OSError as error:
        raise ConfigError(f"port={port} cannot be used ({error.strerror}): choose another one, or port=0") from error
    server.start()
    return server, f"http://{HOST}:{server.port}/"


def serve(add_page: Callable[[Document], None], port: int, opens: bool, is_stopped: Callable[[], bool]) -> None:
    """Show the page until ``is_stopped``. The address is printed and, if ``opens``, opened in the browser.

    Args:
        add_page: adds the page to the document of a visitor.
        port: as in ``start_server``.
        opens: whether the browser is opened.
        is_stopped: is asked a few times a second.
    """
    server, address = start_server(add_page, port)
    print(f"the page is at {address} (Ctrl-C stops it)", flush=True)
    if opens:
        webbrowser.open(address)
    # A signal that arrives while the server answers is only noted: an exception would stay in the event loop.
    watch = PeriodicCallback(lambda: server.io_loop.stop() if is_stopped() else None, 200)
    watch.start()
    try:
        server.io_loop.start()
    finally:
        watch.stop()
        server.stop()
