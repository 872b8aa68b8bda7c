"""AGM in Lightning: `python examples/lightning_loop.py`.

Lightning owns the loop, and calls `backward`: so the method gives it the loss, and changes the gradients where
Lightning asks for them. Accumulation, bfloat16 and clipping are Lightning's. For methods of one step a batch
(docs/library.md says which).
"""

import lightning
import torch
from torch import Tensor

import agm
from plain_loop import build_model
from samples import loader


class Module(lightning.LightningModule):
    """A method and its model."""

    def __init__(self, method: agm.methods.Method) -> None:
        super().__init__()
        self.model, self.method = method.model, method  # both: the method's state does not hold the model's

    def on_train_epoch_start(self) -> None:
        trainer = self.trainer
        loaders = {"train": trainer.train_dataloader, "val": trainer.val_dataloaders}
        self.method.start_epoch(self.current_epoch, epochs=trainer.max_epochs, **loaders)

    def training_step(self, batch: tuple[dict[str, Tensor], Tensor], index: int) -> Tensor:
        inputs, labels = batch
        loss = self.method.loss(inputs, labels)
        self.log("loss", loss)
        return loss

    def backward(self, loss: Tensor) -> None:
        self.method.backward(loss)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05)


def fit(method: agm.methods.Method, batches: object, **options: object) -> lightning.Trainer:
    """Train with Lightning's own loop, and without its files and bars."""
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(Module(method), batches, batches)
    return trainer


def main() -> float:
    """Train for two epochs, with the gradients of two batches in each step."""
    torch.manual_seed(0)
    method = agm.methods.AGM(build_model(), alpha=1.0)
    trainer = fit(method, loader(), max_epochs=2, accumulate_grad_batches=2)
    loss = trainer.callback_metrics["loss"].item()
    print(f"last loss: {loss:.3f}")
    return loss


if __name__ == "__main__":
    main()
