# docker build -t msta .
# docker run --rm -v "$PWD:/data" msta train --data clips --out runs/first
# With a GPU: docker run --gpus all … The same image does it: torch's wheel for Linux brings CUDA's libraries with it.
FROM python:3.11-slim
WORKDIR /msta
COPY . .
RUN pip install --no-cache-dir --constraint constraints.txt torch==2.13.0 && \
    pip install --no-cache-dir --constraint constraints.txt '.[app,lora,onnx,serve]'
WORKDIR /data
ENTRYPOINT ["msta"]
CMD ["--help"]
