# SPDX-License-Identifier: Apache-2.0
"""`dan-ros average`: average the weights of two checkpoints."""

from pathlib import Path

import click

from dan_ros.cli.common import PATH, FloatRange, need


@click.command('average')
@click.argument('first', type=PATH)
@click.argument('second', type=PATH)
@click.option('-o', '--output', type=PATH, required=True, help='The .safetensors file to write.')
@click.option(
    '--share',
    default=0.5,
    show_default=True,
    type=FloatRange(0, 1),
    help='Weight of SECOND; the rest is the weight of FIRST.',
)
def command(first: Path, second: Path, output: Path, share: float) -> None:
    """Average the weights of two checkpoints of one network.

    SECOND should have been trained from FIRST (dan-ros train --start FIRST), or both from the same
    weights. The average often keeps most of what each of them does better (WiSE-FT, Wortsman et al.
    2022). Evaluate it as any other checkpoint: dan-ros evaluate DATA OUTPUT.
    """
    need('torch', 'safetensors')
    from dan_ros.train.checkpoints import save_weights
    from dan_ros.train.interpolate import interpolate_checkpoints

    state, notes = interpolate_checkpoints(first, second, share)
    output.parent.mkdir(parents=True, exist_ok=True)
    save_weights(output, state, notes)
    click.echo(f'{output}: {1 - share:.2f} of {first}, {share:.2f} of {second}')
