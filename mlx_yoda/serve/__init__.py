"""A local server: a page to talk to the model, over an OpenAI-compatible API.

mlx-lm has such a server, and this one would be a call to it if it could be told what we promise.
It (0.32.2) loads whatever model, folder or adapter a request names, and images from any address
that a message names; reads a request of any size before looking at it; asks for no token and does
not look at the Host header; and puts the users' words into the template without `data.controls`.
Its handler and its model provider are made in functions that take no others, so that only
patching would change that. Ours is the standard library's HTTP server in front of one queue.

    access    who may ask
    request   what they ask, checked
    worker    one answer at a time
    reply     how the answer is written
    server    HTTP
    page      what a browser shows
"""
