# SPDX-License-Identifier: Apache-2.0
"""Child process of node_against_baseline.py: measures the node in its environment.

Prints one JSON object. It also has to work with the package of the baseline.
"""

import json
import statistics
import sys
import time

import click
import numpy as np
from client import Client, cpu_seconds, dan_node, image_message, start_node

WARM_UP_S = 2.0


@click.command()
@click.argument('image')
@click.argument('transport')
@click.argument('rate_hz', type=float)
@click.argument('seconds', type=float)
@click.argument('domain', type=int)
def main(image: str, transport: str, rate_hz: float, seconds: float, domain: int) -> None:
    """Start the node, send it IMAGE (.npy) at a fixed rate, and print what that cost."""
    is_compressed = transport == 'compressed'
    message = image_message(np.load(image), is_compressed)
    topic = 'image/compressed' if is_compressed else 'image'
    options = ['--ros-args', '-p', f'image_transport:={transport}']
    start_s = time.monotonic()
    process = start_node(dan_node(), *options, ROS_DOMAIN_ID=str(domain))
    try:
        with Client(domain, image_type=type(message), topic=topic) as client:
            client.wait_for_result(process, lambda: client.send(message))
            start_s = time.monotonic() - start_s
            start_cpu_s = cpu_seconds(process)
            client.send_at_rate(message, rate_hz, WARM_UP_S)
            client.clear()
            cpu_s = cpu_seconds(process)
            client.send_at_rate(message, rate_hz, seconds)
            cpu_s = cpu_seconds(process) - cpu_s
            memory = process.memory_full_info()
    finally:
        process.kill()
        process.wait()
    values = {
        'age of a result, ms': statistics.median(client.ages_ms),
        'CPU time per result, ms': 1e3 * cpu_s / len(client.ages_ms),
        'CPU, % of a core': 100 * cpu_s / seconds,
        'results per image': len(client.ages_ms) / client.sent,
        'resident, MiB': memory.rss / 2**20,
        'unique memory (USS), MiB': memory.uss / 2**20,
        'first result, s': start_s,
        'CPU time to the first result, s': start_cpu_s,
    }
    sys.stdout.write(json.dumps(values) + '\n')


if __name__ == '__main__':
    main()
